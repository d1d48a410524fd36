"""Where a run goes on: at the newest checkpoint of either tier, never behind one that was confirmed in silence."""

import logging
from dataclasses import dataclass

from model.checkpoint import CheckpointError, Checkpoints, OtherModelError, Restored
from model.loop import TrainState
from tasks.errors import ConfigError, DataFault
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
        """
        self.checkpoints.sweep()
        here, there = set(self.checkpoints.steps()), set[int]()
        newest, reason = self.journal.newest_save(), ""
        if self.remote is not None:
            self.remote.sweep()
            there = set(self.remote.steps())
            newest = max(newest, self.remote.newest())
        for step in sorted(here | there, reverse=True):
            self._require_permitted(step, newest, reason)
            try:
                found = self._read(like, step, step in here, step in there)
            except OtherModelError as error:
                raise ConfigError(str(error)) from error
            except CheckpointError as error:
                log.error("%s", error)
                newest, reason = max(newest, step), reason or f"{error} "
                continue
            self._require_same_run(found)
            if step < newest:
                self._roll_back(step, newest, reason)
            return found
        self._require_permitted(0, newest, reason)
        if newest:
            self._roll_back(0, newest, reason)
        return None

    def _read(self, like: TrainState, step: int, is_here: bool, is_there: bool) -> Restored:
        if is_here:
            try:
                return self.checkpoints.restore(like, step)
            except OtherModelError:
                raise
            except CheckpointError as error:
                if not is_there:
                    raise
                log.warning("%s It is fetched again from the remote tier.", error)
                self.checkpoints.delete(step)
        assert self.remote is not None
        history = self.remote.fetch(step, self.checkpoints.path(step))
        self.journal.recover(history, step)
        return self.checkpoints.restore(like, step)

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
