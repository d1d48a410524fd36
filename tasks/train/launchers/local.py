"""A trainer as a subprocess of this one; and what every trainer that is one needs."""

import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.cpu import cpu_environment
from tasks.train.launcher import Follow
from tasks.train.run import RunSpec

log = logging.getLogger(__name__)

STEP_S = 60.0  # beyond the grace, for the step that a trainer is in: this machine does not go away
POLL_S = 0.2
TRAINER = (sys.executable, "-m", "tasks.train")


class LocalLauncher:
    """A subprocess of this one. It dies with it, and saves when it is told to stop."""

    def __init__(self, command: Sequence[str] = TRAINER):
        self._command = tuple(command)

    def run(self, spec: RunSpec, run_json: Path, follow: Follow) -> int:
        spec.error.unlink(missing_ok=True)
        child = start(self._command, spec, run_json)
        try:
            while child.poll() is None:
                follow()
                time.sleep(POLL_S)
        except BaseException:
            stop([child], spec.config.grace_s)
            raise
        finally:
            follow()
        assert child.returncode is not None
        return child.returncode


def start(
    command: Sequence[str], spec: RunSpec, run_json: Path, variables: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """A trainer whose output goes to the log of the run."""
    with spec.log.open("ab") as out:
        return subprocess.Popen(
            [*command, str(run_json)],
            env=trainer_environment(spec) | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C comes to us; we tell the child
            cwd=clone(),
        )


def trainer_environment(spec: RunSpec) -> dict[str, str]:
    """The variables of a trainer: the allocator's on CPUs, a compile cache that outlives it, who its parent is."""
    environment = dict(os.environ)
    if not spec.config.needs:
        environment |= cpu_environment()
    environment |= {
        "NESTLING_PARENT_PID": str(os.getpid()),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(clone()), environment.get("PYTHONPATH")])),
        "TF_CPP_MIN_LOG_LEVEL": environment.get("TF_CPP_MIN_LOG_LEVEL", "2"),
    }
    environment.setdefault("JAX_COMPILATION_CACHE_DIR", str(clone() / ".cache" / "jax"))
    environment.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    return environment


def stop(children: "Sequence[subprocess.Popen[bytes]]", grace_s: float) -> None:
    """Ask trainers to save and go; insist after the grace and the time of a step."""
    running = [child for child in children if child.poll() is None]
    until = time.monotonic() + grace_s + STEP_S
    for child in running:
        log.warning("stopping the trainer (process %s); it saves first", child.pid)
        child.terminate()
    for child in running:
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def clone() -> Path:
    """The clone: `python -m tasks.train` runs from it, so that flow and trainer are of one commit."""
    return Path(__file__).resolve().parents[3]
