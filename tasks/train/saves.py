"""Checkpoints on their way: written to the local tier, copied to the remote one, confirmed, and old ones removed.

A save is confirmed (`saves.jsonl`) when it is whole on every tier it goes to. All bounds are measured on a clock that
never jumps.
"""

import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from model.checkpoint import Checkpoints
from model.loop import TrainState
from tasks.errors import HostFault
from tasks.train.journal import Journal
from tasks.train.remote import Remote, StoppedError
from tasks.train.retention import best_steps, kept
from tasks.train.run import RunSpec, free_space

log = logging.getLogger(__name__)

LEAVE_S = 5.0  # for an upload to notice that the trainer ends


@dataclass
class _Pending:
    """A save that is not confirmed yet."""

    step: int
    began: float
    deadline: float
    goes_remote: bool
    is_written: bool = False


class Saves:
    """The saves of one trainer. A fault of the background is raised by the next call of any method.

    `check` raises HostFault when a save failed or, `confirm_within_s` after it was made, neither it nor a later one is
    confirmed. When copying is slower than saving, copies that a later one makes needless are left out.

    Of several trainers of a run each writes its arrays; the first does everything else. To the others a save counts as
    confirmed when it is written.
    """

    def __init__(self, spec: RunSpec, journal: Journal, checkpoints: Checkpoints, remote: Remote | None):
        self._spec, self._config, self._journal = spec, spec.config, journal
        self._checkpoints, self._remote = checkpoints, remote
        self._is_first = jax.process_index() == 0
        self.took_s = 0.0  # from the beginning of the newest save until it was written here; 0 is not known yet
        self._pending: list[_Pending] = []  # oldest first
        self._error: BaseException | None = None
        self._is_closing = False
        self._changed = threading.Condition()
        self._writer: threading.Thread | None = None  # waits for the local write under way
        self._worker = threading.Thread(target=self._work, daemon=True, name="saves")
        self._worker.start()

    def save(self, step: int, state: TrainState, facts: dict[str, Any], *, is_last: bool = False) -> None:
        """Begin to save; the last save of a process always goes to the remote tier."""
        self._wait_until(lambda: all(save.is_written for save in self._pending))
        self._journal.before_save()
        try:
            self._checkpoints.save(step, state, facts)
        except Exception as error:
            raise self._unwritten(error) from error
        save = self._add(step, is_last or step % self._config.remote_every_steps == 0)
        self._writer = threading.Thread(target=self._await_written, args=(save,), daemon=True, name=f"save-{step}")
        self._writer.start()

    def adopt(self, step: int) -> None:
        """Confirm a checkpoint that is whole on the local tier: its process may have died before it could."""
        self._add(step, is_for_remote=True, is_written=True)

    def check(self) -> None:
        """Raise the fault of a save, if there is one."""
        with self._changed:
            self._check()

    def confirm(self, within_s: float = math.inf) -> None:
        """Wait until everything is confirmed; after so many seconds not for a copy of what is written here."""
        end = time.monotonic() + within_s
        left: list[int] = []

        def is_done() -> bool:
            if time.monotonic() >= end and all(save.is_written and save.goes_remote for save in self._pending):
                left.extend(save.step for save in self._pending)
                return True
            return not self._pending

        self._wait_until(is_done, end)
        if left and self._remote is not None:
            log.warning(
                "step %s is written here and was not yet whole in %s after %.1f s: the machine goes, and the next "
                "trainer copies it if this disk is still there",
                left[-1], self._remote.url, within_s,
            )  # fmt: skip

    def close(self) -> None:
        """Let the local write under way finish, within its bound, and leave the rest to a resume."""
        with self._changed:
            self._is_closing = True
            unwritten = [save.deadline for save in self._pending if not save.is_written]
            self._changed.notify_all()
        if self._remote is not None:
            self._remote.stop()
        self._worker.join(LEAVE_S)
        if self._writer is not None:
            self._writer.join(max(0.0, max(unwritten, default=0.0) - time.monotonic()))
            if self._writer.is_alive():
                log.warning("left without waiting for a write that does not end")
                return
        self._checkpoints.close()

    def __enter__(self) -> "Saves":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, step: int, is_for_remote: bool, is_written: bool = False) -> _Pending:
        now = time.monotonic()
        save = _Pending(
            step, now, now + self._config.confirm_within_s, self._remote is not None and is_for_remote, is_written
        )
        with self._changed:
            self._pending.append(save)
            self._changed.notify_all()
        return save

    def _await_written(self, save: _Pending) -> None:
        try:
            self._checkpoints.wait()
            if self._is_first:
                _sync_tree(self._checkpoints.path(save.step))
        except Exception as error:
            fault = self._unwritten(error)
            fault.__cause__ = error
            self._fail(fault)
        except BaseException as error:
            self._fail(error)
        else:
            with self._changed:
                save.is_written, self.took_s = True, time.monotonic() - save.began
                self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing or self._next() is not None)
                save = self._next()
                if self._is_closing or save is None:
                    return
            try:
                self._finish(save)
            except StoppedError:
                return
            except BaseException as error:  # raised again in the trainer's thread
                self._fail(error)
                return

    def _next(self) -> _Pending | None:
        """The oldest written save that no later copy makes needless."""
        written = [save for save in self._pending if save.is_written]
        for index, save in enumerate(written):
            is_permanent = bool(self._config.keep_every_steps) and save.step % self._config.keep_every_steps == 0
            if not save.goes_remote or is_permanent or not any(later.goes_remote for later in written[index + 1 :]):
                return save
        return None

    def _finish(self, save: _Pending) -> None:
        if self._remote is not None and save.goes_remote:
            began = time.monotonic()
            self._remote.upload(save.step, self._checkpoints.path(save.step), self._journal.history(save.step))
            if self._is_closing:
                return
            self._remote.confirm(save.step)
            log.info("step %s is whole in %s after %.1f s", save.step, self._remote.url, time.monotonic() - began)
        if self._is_first:
            self._journal.saved(save.step)
            self._retire()
        with self._changed:
            self._pending = [other for other in self._pending if other.step > save.step]
            self._changed.notify_all()

    def _retire(self) -> None:
        """Remove what need not stay; permanent ones live on the remote tier where there is one."""
        keep, every, newest = self._config.keep, self._config.keep_every_steps, self._journal.newest_save()
        best = best_steps(self._spec.scores, self._config.keep_best)
        here = self._checkpoints.steps()
        for step in sorted(set(here) - kept(here, newest, keep=keep, every=0 if self._remote else every, best=best)):
            self._checkpoints.delete(step)
        if self._remote is not None:
            there = self._remote.steps()
            for step in sorted(set(there) - kept(there, newest, keep=keep, every=every, best=best)):
                self._remote.delete(step)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _wait_until(self, is_so: Callable[[], bool], end: float = math.inf) -> None:
        with self._changed:
            while True:
                self._check()
                if is_so():
                    return
                now = time.monotonic()
                soonest = min(save.deadline for save in self._pending)
                soonest = min(soonest, end) if end > now else soonest
                self._changed.wait(max(0.0, soonest - time.monotonic()) + 0.01)

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
        late = [save for save in self._pending if time.monotonic() > save.deadline]
        if late:
            where = f"is not whole in {self._remote.url}" if self._remote and late[0].is_written else "is not written"
            raise HostFault(
                f"the checkpoint of step {late[0].step} {where} {self._config.confirm_within_s:g} s after it was "
                f"made (confirm_within_s): going on would put ever more steps at risk. Steps up to "
                f"{self._journal.newest_save()} are safe. Look at the storage, raise the bound, or save less often; "
                "the same command resumes."
            )

    def _unwritten(self, error: Exception) -> HostFault:
        """A save that failed stops the run: going on would put ever more steps at risk."""
        what = ": ".join(str(error).split(": ")[-2:])  # whatever the storage makes Orbax say
        return HostFault(
            f"a checkpoint could not be written: {what[-300:]}. {free_space(self._spec.run_dir)} Steps up to "
            f"{self._journal.newest_save()} are safe, later ones would be done again. Free space or mend the "
            f"storage of {self._spec.checkpoints}; the same command resumes."
        )


def _sync_tree(directory: Any) -> None:
    """Bring the small files and the names to the disk too; Orbax does that for arrays only."""
    for path in [*directory.rglob("*"), directory, directory.parent]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
