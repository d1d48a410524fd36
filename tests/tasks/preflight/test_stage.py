"""The whole stage with a compiler that answers from a checked-in program: what fits, what is refused, what is kept."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from model.config import ComputeConfig, OptimizerConfig
from tasks.artifact import Artifact, produce
from tasks.errors import ConfigError
from tasks.preflight import stage
from tasks.preflight.compiler import Compiled
from tasks.preflight.config import PreflightConfig, TrainedStep
from tasks.preflight.page import PAGE
from tasks.preflight.slices import GIB
from tests.tasks.preflight import programs

STEP = TrainedStep(
    model="gemma2/tiny",
    seq_len=512,
    rows=8,
    accumulate=1,
    total_tokens=4_096_000,
    mesh={"data": 1, "fsdp": 4, "tensor": 1},
    compute=asdict(ComputeConfig(dtype="bfloat16", remat="full")),
    optimizer=asdict(OptimizerConfig(peak_lr=1e-4, total_steps=1000)),
)
OOM = "RESOURCE_EXHAUSTED: the total memory required (42.03G) exceeds available HBM (31.25G)."


class Compiler:
    """Fits `rows_that_fit` rows of a device at once under full remat, half of them under any other policy."""

    def __init__(self, folder: Path, rows_that_fit: float):
        self.rows_that_fit, self.specs = rows_that_fit, []
        self.hlo = folder / "hlo.txt.gz"
        self.hlo.write_bytes(gzip.compress(programs.compiled("scan_sparsecore").encode()))

    def __call__(self, spec: dict) -> Compiled:
        self.specs.append(spec)
        rows = spec["rows"] / 4 / spec["accumulate"]
        fits = rows <= self.rows_that_fit / (1 if spec["compute"]["remat"] == "full" else 2)
        memory = dict.fromkeys(("argument", "output", "alias", "temp", "generated_code"), GIB)
        facts = {
            "memory": memory | {"peak": round(3 * rows * GIB)} if fits else None,
            "refusal": "" if fits else OOM,
            "compile_s": 1.0,
            "cost_analysis_flops": 1e9,
        }
        return Compiled(json.dumps(spec["compute"]["remat"]) + str(rows), facts, self.hlo)


def made(tmp_path, monkeypatch, rows_that_fit: float, **changes) -> tuple[Artifact, Compiler]:
    compiler = Compiler(tmp_path, rows_that_fit)
    monkeypatch.setattr(stage, "compile_step", compiler)
    config = PreflightConfig(run="cpt/tiny", slice="v6e:2x2", step=STEP, search_rows=4).with_changes(changes)
    return produce(str(tmp_path / "store"), stage.PREFLIGHT, "cpt-tiny", config, {}), compiler


def test_a_run_that_fits_is_measured_and_a_person_can_read_about_it(tmp_path, monkeypatch):
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=2, search=False)
    stage.require_fit(artifact)
    found = artifact.read_json(stage.VERDICT)
    own = found["own"]
    assert found["fits"]
    assert own["memory"] == {"arguments": 1.0, "temp": 1.0, "peak": 6.0, "available": 31.25}
    assert own["model_flops"] == 6 * own["params"] * 2 * 512
    assert own["matmul_flops"] == 3 * 2 * 512 * 1024 * 1024 + 2 * 1024 * 512 * 1024
    assert {one["kind"] for one in own["traffic"]} == {"all-gather", "reduce-scatter"}
    assert all(one["async_fraction"] == 1.0 for one in own["traffic"])
    time = own["time"]
    assert time["step_s"] == pytest.approx(time["matmul_s"] + time["other_s"] + time["kernels_s"] + time["stalls_s"])
    assert time["mfu"] == pytest.approx(own["model_flops"] / 918e12 / time["step_s"])
    assert time["tokens_per_s_per_chip"] == pytest.approx(2 * 512 / time["step_s"])
    assert artifact.read_bytes(stage.HLO)
    text, html = artifact.read_bytes(stage.SUMMARY).decode(), artifact.read_bytes(PAGE).decode()
    for part in ("cpt/tiny on v6e:2x2", "peak 6.00 of 31.25 GiB", "MFU", "kg CO2e", "chip-hours"):
        assert part in text
        assert part in html
    assert "http" not in html.replace("http-equiv", "")


def test_costs_of_the_run_are_steps_times_seconds_times_chips(tmp_path, monkeypatch):
    changes = {
        "search": False,
        "usd_per_chip_hour": 2.0,
        "watts_per_chip": 500.0,
        "pue": 1.2,
        "grams_co2e_per_kwh": 100,
    }
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=2, **changes)
    own = artifact.read_json(stage.VERDICT)["own"]
    hours = 1000 * own["time"]["step_s"] / 3600
    cost = own["cost"]
    assert (cost["steps"], cost["tokens"]) == (1000, 4_096_000)
    assert cost["days"] == pytest.approx(hours / 24)
    assert cost["chip_hours"] == pytest.approx(4 * hours)
    assert cost["usd"] == pytest.approx(8 * hours)
    assert cost["kwh"] == pytest.approx(4 * hours * 0.5 * 1.2)
    assert cost["kg_co2e"] == pytest.approx(cost["kwh"] * 0.1)


def test_interruptions_make_the_run_longer_and_the_page_says_how_often_to_save(tmp_path, monkeypatch):
    often = {
        "interruptions.mean_hours_between": 0.5,
        "interruptions.notice_fraction": 0.0,
        "step.save_every_steps": 400,
    }
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=2, **often)
    found = artifact.read_json(stage.VERDICT)
    own, best, run = (found["outlook"][name] for name in ("own", "best", "run"))
    assert own["save_every_steps"] == 400
    assert run["step_s"] == found["own"]["time"]["step_s"]
    assert run["save_s"] == run["restore_s"] == pytest.approx(4 * 2**30 / 1e9)  # 4 chips of a host, 1 GiB each, 1 GB/s
    assert sum(own["seconds"].values()) > found["own"]["cost"]["steps"] * run["step_s"]
    assert best["seconds"]["step"] / sum(best["seconds"].values()) >= own["seconds"]["step"] / sum(
        own["seconds"].values()
    )
    for name in (stage.SUMMARY, PAGE):
        text = artifact.read_bytes(name).decode()
        assert "saving every 400 steps" in text
        assert "best interval" in text


def test_a_run_of_unknown_length_has_no_outlook(tmp_path, monkeypatch):
    unknown = STEP.model_copy(update={"total_tokens": None, "save_every_steps": 400})
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=2, step=unknown.model_dump())
    assert artifact.read_json(stage.VERDICT)["outlook"] is None


def test_a_run_that_never_reaches_a_save_is_refused(tmp_path, monkeypatch):
    hopeless = {"interruptions.mean_hours_between": 0.001, "step.save_every_steps": 400}
    with pytest.raises(ConfigError, match="were interrupted before they could save"):
        made(tmp_path, monkeypatch, rows_that_fit=2, **hopeless)


def test_a_run_that_does_not_fit_is_refused_with_what_would(tmp_path, monkeypatch):
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=1)
    with pytest.raises(ConfigError, match="does not fit") as error:
        stage.require_fit(artifact)
    for part in ("cpt/tiny on v6e:2x2", "2 rows of a device at once", OOM, "1 rows at once and remat 'full'"):
        assert part in str(error.value)
    assert error.value.exit_code == 78
    assert "DOES NOT FIT" in artifact.read_bytes(stage.SUMMARY).decode()


def test_where_nothing_fits_a_larger_slice_is_the_remedy(tmp_path, monkeypatch):
    artifact, _ = made(tmp_path, monkeypatch, rows_that_fit=0.5)
    with pytest.raises(ConfigError, match="larger slice"):
        stage.require_fit(artifact)


def test_the_search_finds_the_largest_batch_and_keeps_the_batch_of_the_run_where_it_can(tmp_path, monkeypatch):
    artifact, compiler = made(tmp_path, monkeypatch, rows_that_fit=4)
    found = artifact.read_json(stage.VERDICT)
    assert found["largest"]["rows_at_once"] == 4
    assert found["largest"]["remat"] == "full"
    shapes = {(spec["rows"], spec["accumulate"]) for spec in compiler.specs}
    assert shapes == {(8, 2), (8, 1), (16, 1)}  # 1 and 2 rows at once are the same batch of 8, 4 are one of 16
    assert found["best"]["time"]["tokens_per_s_per_chip"] == max(
        one["time"]["tokens_per_s_per_chip"] for one in found["trials"] if one["fits"]
    )


def test_the_same_question_is_answered_from_the_store(tmp_path, monkeypatch):
    first, _ = made(tmp_path, monkeypatch, rows_that_fit=2, search=False)
    again, compiler = made(tmp_path, monkeypatch, rows_that_fit=2, search=False)
    assert again.url == first.url
    assert not compiler.specs


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"slice": "v6e:2x4"}, id="another slice"),
        pytest.param({"step.rows": 16}, id="another batch"),
        pytest.param({"compiler": "jax 9, libtpu 9"}, id="another compiler"),
        pytest.param({"attention_efficiency": 0.3}, id="another assumption"),
    ],
)
def test_what_changes_the_answer_is_another_artifact(tmp_path, monkeypatch, changes):
    first, _ = made(tmp_path, monkeypatch, rows_that_fit=9, search=False)
    mesh = {"step.mesh.fsdp": 8} if "slice" in changes else {}
    other, _ = made(tmp_path, monkeypatch, rows_that_fit=9, search=False, **changes, **mesh)
    assert other.url != first.url


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"slice": "v6e:4x4"}, ("4 devices", "v6e:4x4 has 16", "mesh.fsdp=16")),
        ({"step.rows": 6}, ("6 rows", "4 equal parts", "4 rows")),
        ({"step": None}, ("has not become a step", "nestling preflight cpt/27b")),
    ],
)
def test_a_step_that_does_not_belong_to_the_slice_is_refused_before_it_is_compiled(
    tmp_path, monkeypatch, changes, parts
):
    with pytest.raises(ConfigError) as error:
        made(tmp_path, monkeypatch, rows_that_fit=9, search=False, **changes)
    for part in parts:
        assert part in str(error.value)
