"""`python -m tasks.train RUN.json`: one trainer process. Its exit code says what to do next (design 4)."""

import argparse
import ctypes
import json
import logging
import os
import signal
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

from tasks.errors import ConfigError, HostFault, NestlingError, Preempted
from tasks.train.goodput import mark
from tasks.train.hosts import HOSTS, error_file, host_here, meet, part
from tasks.train.preemption import Notices, watch
from tasks.train.run import RunSpec, read_run
from tasks.train.watchdog import Watchdog

PARENT = "NESTLING_PARENT_PID"  # set by a launcher whose death ends the trainer
log = logging.getLogger("tasks.train")


def main() -> int:
    """Train, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tasks.train", description=__doc__)
    parser.add_argument("run", type=Path, help="the run.json that the train stage wrote")
    path = parser.parse_args().run
    logging.basicConfig(level=logging.INFO, format=_log_format(), stream=sys.stderr)
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax tells every thread's every step
    notices = Notices()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: notices.tell(signal.Signals(number).name))
    _die_with_parent(notices)
    log.info("process %s, %s", os.getpid(), path)
    host = host_here()
    spec: RunSpec | None = None
    try:
        spec = read_run(path)
        error_file(spec, host).unlink(missing_ok=True)
        spec.run_dir.mkdir(parents=True, exist_ok=True)
        _mark(spec, "start")
        watch(notices, spec.config.preemption_file)
        with Watchdog(spec.config.step_timeout_s, partial(_bitten, spec)) as watchdog:
            _train(spec, notices, watchdog)
    except Preempted as error:
        reason = notices.first.reason if notices.first is not None else "another host was told"
        return _failed(spec, error.exit_code, f"{reason}: {error}")
    except NestlingError as error:
        return _failed(spec, error.exit_code, str(error))
    except OSError as error:
        traceback.print_exc()
        return _failed(
            spec,
            HostFault.exit_code,
            f"{type(error).__name__}: {error}. A disk or a network failed under the trainer; the steps up to the "
            "newest checkpoint are safe. Mend it (free space, mount, connection); the same command resumes.",
        )
    except Exception as error:
        traceback.print_exc()
        return _failed(spec, 1, f"{type(error).__name__}: {error}")
    _mark(spec, "end", reason="done")
    return 0


def _train(spec: RunSpec, notices: Notices, watchdog: Watchdog) -> None:
    import jax

    from tasks.train.trainer import train

    try:
        meet()
        try:
            train(spec, notices.is_told, lambda: notices.left(spec.config.grace_s), watchdog.beat)
        except Preempted:
            part()
            raise
        part()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise HostFault(
                f"JAX stopped: {str(error)[:600]}. A device or its driver failed; nothing is lost but the steps since "
                "the newest checkpoint. The same command resumes; if it fails again, take another host."
            ) from error
        raise ConfigError(
            f"out of memory with batch_tokens={spec.config.batch_tokens:,}, "
            f"accumulate={spec.config.accumulate}, remat={spec.config.remat!r}: {str(error)[:300]}. A rerun "
            "would fail again. Raise accumulate, set remat to full, or use more devices."
        ) from error


def _bitten(spec: RunSpec, message: str) -> None:
    """What hangs cannot be asked to end."""
    code = _failed(spec, HostFault.exit_code, message)
    logging.shutdown()
    os._exit(code)


def _log_format() -> str:
    host = f" host {host_here()}" if HOSTS in os.environ else ""  # they may share a log
    return f"%(asctime)s{host} %(levelname)s %(message)s"


def _failed(spec: RunSpec | None, code: int, message: str) -> int:
    log.error("exit %s: %s", code, message)
    if spec is not None:
        try:
            spec.run_dir.mkdir(parents=True, exist_ok=True)
            error_file(spec, host_here()).write_text(
                json.dumps({"code": code, "message": message}, ensure_ascii=False) + "\n"
            )
            _mark(spec, "end", reason=message.partition(". ")[0][:200])
        except OSError:
            log.exception("error.json could not be written")
    return code


def _mark(spec: RunSpec, what: str, **facts: Any) -> None:
    """The first trainer of a run speaks for all."""
    if host_here() == 0:
        mark(spec.goodput, what, **facts)


def _die_with_parent(notices: Notices) -> None:
    """Save and go when the process that started us is gone, even if it was killed with SIGKILL."""
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:  # it was gone before the line above
        notices.tell("the process that started this one is gone")


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of libraries (grain, orbax, XLA) may still wait for something; everything of ours is on disk.
    os._exit(code)
