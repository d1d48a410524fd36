"""What the end of a trainer means; the trainers here are shell one-liners."""

import pytest

from tasks.errors import ConfigError, DataFault, HostFault, Preempted
from tasks.progress import listen
from tasks.train.launcher import TrainerError, train_to_the_end
from tasks.train.launchers.local import LocalLauncher
from tests.tasks.train.nano import nano_spec


@pytest.fixture
def spec(tmp_path, text_pack):
    return nano_spec(tmp_path / "run", text_pack, preempt_budget=2, fault_budget=1)


def shell(spec, script: str) -> LocalLauncher:
    """A trainer that runs a script in the run directory; $1 is run.json."""
    return LocalLauncher(("sh", "-c", f'cd "{spec.run_dir}"; {script}', "trainer"))


def starts(spec) -> int:
    return len((spec.run_dir / "started").read_text().splitlines())


COUNT = "echo x >> started; n=$(wc -l < started); "


def test_done_is_done(spec):
    assert train_to_the_end(spec, shell(spec, 'grep -q gemma2/nano "$1"'), "x", 12) == 1


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param("75 75 0", 3, id="preempted within its budget"),
        pytest.param("76 0", 2, id="host fault within its budget"),
        pytest.param("9 0", 2, id="killed counts as a host fault"),
        pytest.param("75 76 75 0", 4, id="each kind has its own budget"),
        pytest.param("75 75 75 0", Preempted, id="preempted too often"),
        pytest.param("76 76 0", HostFault, id="host fault too often"),
        pytest.param("76 9 0", HostFault, id="kill and fault share a budget"),
        pytest.param("77 0", DataFault, id="data is not tried again"),
        pytest.param("78 0", ConfigError, id="config is not tried again"),
        pytest.param("1 0", TrainerError, id="code is not tried again"),
    ],
)
def test_ends_and_budgets(spec, ends, expected):
    kill = "if [ $end = 9 ]; then kill -9 $$; fi; exit $end"
    launcher = shell(spec, f'{COUNT} end=$(echo {ends} | cut -d" " -f$n); {kill}')
    if isinstance(expected, int):
        assert train_to_the_end(spec, launcher, "x", 12) == expected
    else:
        with pytest.raises(expected):
            train_to_the_end(spec, launcher, "x", 12)


def test_a_new_checkpoint_fills_the_budgets_again(spec):
    launcher = shell(spec, f"{COUNT} mkdir -p checkpoints/$n; [ $n -gt 6 ] && exit 0; exit 76")
    assert train_to_the_end(spec, launcher, "x", 12) == 7, "six faults with a budget of one, each after progress"


def test_the_error_is_what_the_trainer_said(spec):
    said = '{"code": 77, "message": "step 5: loss is nan."}'
    with pytest.raises(DataFault, match=r"^step 5: loss is nan\.$"):
        train_to_the_end(spec, shell(spec, f"echo '{said}' > error.json; exit 77"), "x", 12)
    with pytest.raises(TrainerError, match="exit code 3") as caught:
        train_to_the_end(spec, shell(spec, "echo the last words >&2; exit 3"), "x", 12)
    assert "| the last words" in str(caught.value)
    # An old message is not taken for a new one.
    with pytest.raises(HostFault, match=r"killed by SIGKILL \(memory may have run out\)"):
        train_to_the_end(spec, shell(spec, "kill -9 $$"), "x", 12)


def test_progress_follows_the_metrics_also_after_a_resume(spec):
    lines = r"""
    for i in 1 2 3 4; do echo "{\"step\":$i,\"loss\":$i.5,\"tokens_per_s\":100}" >> metrics.jsonl; done; sleep 0.5
    head -2 metrics.jsonl > kept; mv kept metrics.jsonl; sleep 0.5
    for i in 3 4 5; do echo "{\"step\":$i,\"loss\":$i.5,\"tokens_per_s\":100}" >> metrics.jsonl; done; sleep 0.5
    """
    seen = []
    with listen(seen.append):
        train_to_the_end(spec, shell(spec, lines), "x", 5)
    done = [progress.done for progress in seen]
    assert done == sorted(done), "never backwards"
    assert (done[-1], seen[-1].total, seen[-1].note) == (5, 5, "loss 5.500, 100 tokens/s")
    with listen(seen.append):
        train_to_the_end(spec, shell(spec, "true"), "x", 5)
    assert seen[-1].done == 5, "what an earlier run did counts as done"
