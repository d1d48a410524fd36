"""Where a run goes on: at the newest checkpoint of either tier, never behind one that was confirmed in silence.

Of several trainers the first looks and decides; all of them read. When one cannot, the others wait for it within the
reading, so it says so by its end, and all of them start again.
"""

import logging
from dataclasses import dataclass

import jax

from model.checkpoint import CheckpointError, Checkpoints, OtherModelError, Restored
from model.loop import TrainState
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.train.hosts import as_first
from tasks.train.journal import Journal
from tasks.train.remote import Remote
from tasks.train.run import RunIdentity, RunSpec

log = logging.getLogger(__name__)


@dataclass
class Resume:
    """Finds the state that a run goes on from."""

    spec: RunSpec
    journal: Journal
    checkpoints: Checkpoints
    remote: Remote | None

    def restore(self, like: TrainState) -> Restored | None:
        """The newest whole checkpoint, None for a run without one; the journal agrees with it afterwards.

        A checkpoint that is gone or damaged here is taken from the remote tier. One that is so everywhere is passed
        over only as far as allow_rollback or rollback_steps_budget permits, and the steps lost are written down.

        Raises:
            DataFault: going on would lose more steps than is permitted.
            ConfigError: the checkpoint is one of another run.
            HostFault: of several trainers, this one cannot read a checkpoint, which is given up.
        """
        here, there, newest = self._look()
        steps, reason = sorted(here | there, reverse=True), ""
        for step in steps:
            self._require_permitted(step, newest, reason)
            try:
                found = self._read(like, step, step in here, step in there)
            except OtherModelError as error:
                raise ConfigError(str(error)) from error
            except CheckpointError as error:
                log.error("%s", error)
                if jax.process_count() > 1:
                    self._require_seen(step, error)
                    before = step if step in here & there else max((s for s in steps if s < step), default=0)
                    raise self._given_up(step, before, max(newest, step), error) from error
                newest, reason = max(newest, step), reason or f"{error} "
                continue
            self._require_same_run(found)
            self._roll_back(step, newest, reason)
            return found
        self._require_permitted(0, newest, reason)
        self._roll_back(0, newest, reason)
        return None

    def _look(self) -> tuple[set[int], set[int], int]:
        """Steps here, steps in the remote tier, and the newest that was confirmed."""
        here, there, newest = set[int](), set[int](), 0
        if jax.process_index() == 0:
            newest = max([self.journal.newest_save(), *self.checkpoints.discarded()])
            self.checkpoints.sweep()
            here = set(self.checkpoints.steps())
        if self.remote is not None:
            self.remote.sweep()
            there = set(self.remote.steps())
            newest = max(newest, self.remote.newest())
        newest, count, *steps = as_first([newest, len(here), *here, *there])
        return set(steps[:count]), set(steps[count:]), newest

    def _read(self, like: TrainState, step: int, is_here: bool, is_there: bool) -> Restored:
        if is_here:
            try:
                return self.checkpoints.restore(like, step)
            except OtherModelError:
                raise
            except CheckpointError as error:
                if not is_there or jax.process_count() > 1:
                    raise
                log.warning("%s It is fetched again from the remote tier.", error)
                self.checkpoints.delete(step)
        if self.remote is not None:  # the first trainer's
            history = self.remote.fetch(step, self.checkpoints.path(step))
            self.journal.recover(history, step)
        as_first([step])  # it is here
        return self.checkpoints.restore(like, step)

    def _require_seen(self, step: int, error: CheckpointError) -> None:
        """What the first trainer has found and another does not see is not damaged, but late or on another disk."""
        if jax.process_index() and step not in self.checkpoints.steps():
            raise HostFault(
                f"host {jax.process_index()} does not find {self.checkpoints.path(step)}, which the first one does: "
                "all hosts of a run share one run directory. Another may have given it up; if not, put the run "
                "directory on storage that all of them share. The same command resumes."
            ) from error

    def _given_up(self, step: int, before: int, newest: int, error: CheckpointError) -> HostFault:
        """Take a checkpoint that one of several trainers cannot read out of the way of the next start."""
        self._require_permitted(before, newest, f"{error} ")
        self.checkpoints.discard(step)
        if before < step and self.remote is not None:
            self.remote.delete(step)  # the copy is no better
        return HostFault(f"{error} It was taken away: all trainers start again, from step {before}.")

    def _require_permitted(self, step: int, newest: int, reason: str) -> None:
        lost, budget, spent = newest - step, self.spec.config.rollback_steps_budget, self.journal.lost_steps()
        if lost <= 0 or self.spec.config.allow_rollback or spent + lost <= budget:
            return
        remote = f" or {self.remote.url}/{newest}" if self.remote else ""
        raise DataFault(
            f"{reason}The newest checkpoint that can be used is of step {step}, but step {newest} was saved"
            f"{' and confirmed' if newest <= self.journal.newest_save() else ''}: its checkpoint is gone or damaged, "
            f"and {lost} steps would be done again in silence. Bring back {self.spec.checkpoints}/{newest}{remote}, or "
            f"accept the loss: set allow_rollback, or rollback_steps_budget to {spent + lost} (it is {budget}, of "
            f"which {spent} are spent)."
        )

    def _require_same_run(self, found: Restored) -> None:
        saved = RunIdentity.model_validate(found.extra["identity"])
        if differences := saved.differences(self.spec.identity):
            raise ConfigError(
                f"{self.spec.run_dir} holds a run of something else ({'; '.join(differences[:5])}): going on "
                "would mix two runs. Use another run directory, or the config and data of the checkpoint."
            )

    def _roll_back(self, step: int, newest: int, reason: str) -> None:
        """Write the loss down first: a kill in the middle then counts it twice rather than never."""
        if step >= newest or jax.process_index():
            return
        self.journal.rolled_back(step, newest, reason.strip() or f"the checkpoint of step {newest} is gone")
        log.warning("went back from step %s to %s: %s steps are done again", newest, step, newest - step)
        for later in [other for other in self.checkpoints.steps() if other > step]:
            self.checkpoints.delete(later)
        if self.remote is not None:
            left = [other for other in self.remote.steps() if other <= step]
            self.remote.confirm(max(left, default=0))
            for later in [other for other in self.remote.steps() if other > step]:
                self.remote.delete(later)
        self.journal.forget_saves(after=step)
