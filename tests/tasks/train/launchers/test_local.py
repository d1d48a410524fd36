"""A trainer as a subprocess: what it is told, how it is stopped, and that it never outlives its flow."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tasks.train.launchers.local import LocalLauncher, trainer_environment
from tests.tasks.train.nano import nano_spec

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def spec(tmp_path, text_pack):
    return nano_spec(tmp_path / "run", text_pack)


def shell(spec, script: str) -> LocalLauncher:
    """A trainer that runs a script in the run directory."""
    return LocalLauncher(("sh", "-c", f'cd "{spec.run_dir}"; {script}', "trainer"))


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
    monkeypatch.setattr("tasks.train.launchers.local.STEP_S", 0.3 - spec.config.grace_s)
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
