"""The graph: references become steps, steps become artifacts, and `plan` says what would happen and why."""

from collections.abc import Mapping

import pyarrow as pa
import pytest

from flows.graph import FlowSpec, Outputs, Resolver, Step, plan, run, walk
from tasks.artifact import Artifact, Stage, Workspace
from tasks.config import StageConfig, input_field
from tasks.errors import ConfigError


class NumbersConfig(StageConfig):
    count: int


class SumConfig(StageConfig):
    numbers: tuple[str, ...] = input_field("What to add.")
    floor: int = 0


class NeedsTpuConfig(NumbersConfig):
    def check_machine(self) -> None:
        raise ConfigError("needs a TPU")


RAN: list[str] = []


def make_numbers(ws: Workspace, config: NumbersConfig, inputs: Mapping[str, Artifact]) -> None:
    RAN.append(ws.name)
    with ws.unit("all") as unit:
        unit.write_parquet("numbers.parquet", pa.table({"n": list(range(config.count))}))
        unit.count(rows_in=config.count, rows_out=config.count)


def add_numbers(ws: Workspace, config: SumConfig, inputs: Mapping[str, Artifact]) -> None:
    RAN.append(ws.name)
    with ws.unit("all") as unit:
        unit.write_json(
            "sum.json", {"roles": sorted(inputs), "rows": sum(a.manifest.counts.out for a in inputs.values())}
        )
        unit.count(rows_in=1, rows_out=1)


NUMBERS = Stage("numbers", "1", make_numbers, ("tasks.config",))
SUM = Stage("sum", "1", add_numbers, ("tasks.config",))


def no_task(*args: object) -> Artifact:
    raise AssertionError("the plain command must not call Prefect")


def build_numbers(resolver: Resolver, preset: str, config: NumbersConfig) -> Outputs:
    return {"main": Step(preset, NUMBERS, no_task, config)}


def build_sum(resolver: Resolver, preset: str, config: SumConfig) -> Outputs:
    return {"total": Step(preset, SUM, no_task, config, resolver.parents(config))}


FLOWS = {
    "numbers": FlowSpec(
        "numbers",
        {"three": NumbersConfig(count=3), "four": NumbersConfig(count=4), "tpu": NeedsTpuConfig(count=1)},
        build_numbers,
    ),
    "sum": FlowSpec("sum", {"tiny": SumConfig(numbers=("numbers/three", "numbers/four"))}, build_sum),
}


@pytest.fixture(autouse=True)
def _nothing_ran_yet():
    RAN.clear()


def outputs(changes: Mapping | None = None) -> Outputs:
    return Resolver(FLOWS, changes or {}).outputs("sum", "tiny")


def states(outs: Outputs, store: str) -> dict[str, str]:
    return {item.step.label: item.verdict.state if item.verdict else "wait" for item in plan(outs, store)}


def test_parents_come_before_children_and_each_step_once():
    assert [step.label for step in walk(outputs())] == ["numbers/three", "numbers/four", "sum/tiny"]


def test_a_run_makes_everything_once_and_a_second_run_makes_nothing(tmp_path):
    first = run(outputs(), str(tmp_path), prefect=False)
    assert first["total"].read_json("sum.json") == {"roles": ["numbers.0", "numbers.1"], "rows": 7}
    assert RAN == ["three", "four", "tiny"]
    second = run(outputs(), str(tmp_path), prefect=False)
    assert second["total"].url == first["total"].url
    assert RAN == ["three", "four", "tiny"]


def test_plan_says_run_then_hit_and_only_what_depends_on_a_change_waits(tmp_path):
    assert states(outputs(), str(tmp_path)) == {"numbers/three": "run", "numbers/four": "run", "sum/tiny": "wait"}
    run(outputs(), str(tmp_path), prefect=False)
    assert set(states(outputs(), str(tmp_path)).values()) == {"hit"}
    changed = outputs({("numbers", "three"): {"count": 5}})
    assert states(changed, str(tmp_path)) == {"numbers/three": "run", "numbers/four": "hit", "sum/tiny": "wait"}
    reasons = next(item.verdict for item in plan(changed, str(tmp_path)) if item.step.label == "numbers/three").reasons
    assert any("count" in reason and "3" in reason and "5" in reason for reason in reasons)


def test_rerun_names_a_stage_or_one_artifact_of_it(tmp_path):
    run(outputs(), str(tmp_path), prefect=False)
    RAN.clear()
    run(outputs(), str(tmp_path), prefect=False, rerun=frozenset({"numbers/four"}))
    assert RAN == ["four"]  # the same bytes came out, so the cascade stops there


@pytest.mark.parametrize(
    ("reference", "part"),
    [
        ("nothing/tiny", "one of the flows"),
        ("numbers/five", "one of the presets"),
        ("numbers/three:other", "there is no output"),
    ],
)
def test_a_wrong_reference_says_what_exists(reference, part):
    with pytest.raises(ValueError, match=part):
        Resolver(FLOWS, {}).step(reference)


def test_a_machine_without_the_accelerator_stops_before_the_first_byte(tmp_path):
    outs = Resolver(FLOWS, {}).outputs("numbers", "tpu")
    with pytest.raises(ConfigError, match="TPU"):
        run(outs, str(tmp_path), prefect=False)
    assert not list(tmp_path.iterdir())


def test_changes_to_an_unknown_knob_are_refused():
    with pytest.raises(ValueError, match="Did you mean floor"):
        outputs({("sum", "tiny"): {"flor": 3}})


def test_steps_of_one_teacher_follow_each_other_so_that_its_server_starts_once():
    def step(name: str, **parents: Step) -> Step:
        return Step(name, NUMBERS, no_task, NumbersConfig(count=1), parents)

    one, two = step("one"), step("two")
    synth_one, synth_two = step("synth-one", teacher=one), step("synth-two", teacher=two)
    trained = step("trained", a=synth_one, b=synth_two)
    chat_one, chat_two = step("chat-one", teacher=one), step("chat-two", teacher=two)
    order = [s.name for s in walk({"all": step("all", base=trained, one=chat_one, two=chat_two)})]
    assert [name for name in order if "-" in name] == ["synth-one", "chat-one", "synth-two", "chat-two"]
