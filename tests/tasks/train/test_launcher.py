"""What the end of a trainer means; the trainers here are shell and Python one-liners."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasks.errors import ConfigError, DataFault, HostFault, Preempted
from tasks.progress import listen
from tasks.train.launcher import LocalLauncher, TrainerError, train_to_the_end, trainer_environment
from tests.tasks.train.nano import nano_spec

ROOT = Path(__file__).resolve().parents[3]


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


def test_stopping_the_flow_tells_the_trainer_to_save(spec):
    script = "trap 'echo saved > saved; exit 75' TERM; echo up > up; while true; do sleep 0.05; done"
    launcher = shell(spec, script)
    run_json = spec.write()

    def follow():
        if (spec.run_dir / "up").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.run(spec, run_json, follow)
    assert (spec.run_dir / "saved").exists()


def test_a_trainer_that_does_not_go_is_killed(spec, monkeypatch):
    monkeypatch.setattr("tasks.train.launcher.GRACE_S", 0.3)
    launcher = shell(spec, "trap '' TERM; echo $$ > pid; while true; do sleep 0.05; done")

    def follow():
        if (spec.run_dir / "pid").exists() and (spec.run_dir / "pid").read_text():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        launcher.run(spec, spec.write(), follow)
    assert not is_alive(int((spec.run_dir / "pid").read_text()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_trainer_dies_with_a_flow_that_was_killed(tmp_path):
    child = tmp_path / "child.py"
    child.write_text(
        textwrap.dedent("""
            import os, sys, time
            from tasks.train.__main__ import _die_with_parent
            from tasks.train.preemption import Notices
            import signal
            notices = Notices()
            signal.signal(signal.SIGTERM, lambda *_: notices.tell("SIGTERM"))
            _die_with_parent(notices)
            open(sys.argv[1] + "/pid", "w").write(str(os.getpid()))
            while not notices.is_told():
                time.sleep(0.05)
            open(sys.argv[1] + "/saved", "w").close()
        """)
    )
    flow = tmp_path / "flow.py"
    flow.write_text(
        textwrap.dedent(f"""
            import os, subprocess, sys, time
            env = dict(os.environ, NESTLING_PARENT_PID=str(os.getpid()))
            subprocess.Popen([sys.executable, {str(child)!r}, {str(tmp_path)!r}], env=env, start_new_session=True)
            time.sleep(60)
        """)
    )
    parent = subprocess.Popen([sys.executable, flow], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    pid = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    wait_for(lambda: (tmp_path / "saved").exists())
    wait_for(lambda: not is_alive(pid))


def test_environment_has_the_allocator_and_a_lasting_compile_cache(spec, monkeypatch):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    environment = trainer_environment(spec)
    assert environment["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(ROOT / ".cache" / "jax")
    assert environment["NESTLING_PARENT_PID"] == str(os.getpid())
    on_tpu = spec.model_copy(update={"config": spec.config.with_changes({"needs": "tpu v6e-8"})})
    assert "MALLOC_MMAP_MAX_" not in trainer_environment(on_tpu)
