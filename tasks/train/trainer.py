"""The training process: restore, step, save, export. What it promises is that an interruption changes nothing.

Everything a step depends on is in the checkpoint (weights, moments, step, position in the data) or in run.json, so the
steps after a resume are those of the undisturbed run, bit for bit on the same kind of machine.
"""

import fcntl
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from model.checkpoint import CheckpointError, Checkpoints
from model.convert import load_hf
from model.decoder import Decoder
from model.flops import mfu
from model.loop import (
    Loss,
    Metrics,
    TrainState,
    TrainStep,
    abstract_state,
    init_state,
    make_train_step,
    split_model,
    state_of_model,
)
from model.losses import next_token_loss
from model.optimizer import trained_weights
from model.sharding import put_batch
from tasks.errors import ConfigError, DataFault, HostFault, Preempted
from tasks.storage import join
from tasks.tokens import TextTokenizer
from tasks.train.devices import decoder_here, preflight, require_fit
from tasks.train.dump import dump_step
from tasks.train.export import export
from tasks.train.feed.batches import Batches, prefetched
from tasks.train.feed.ledger import require_counted, token_ledger
from tasks.train.feed.phases import unreached
from tasks.train.feed.sources import open_sources, require_equal_ids
from tasks.train.feed.streams import FeedConfig, State
from tasks.train.goodput import Laps, mark
from tasks.train.hosts import Agreement, as_first, compiled_together
from tasks.train.journal import Journal
from tasks.train.numbers import LeftOut, Numbers, is_finished, read_numbers, said
from tasks.train.packing import Row
from tasks.train.remote import Remote
from tasks.train.resume import Resume
from tasks.train.run import RunSpec
from tasks.train.saves import Saves
from tasks.train.share import Share

log = logging.getLogger(__name__)

LEAVE_S = 3.0  # of what a notice leaves: for journals, the lock and the process to end
LOCK_WAIT_S = 120.0  # a trainer that lost its flow saves before it goes


@dataclass
class Position:
    """How far a run is; everything but the arrays."""

    step: int
    tokens: int
    learned: int
    feed: State | None


@dataclass
class _Pending:
    """A step that was given to the devices and whose numbers were not read yet."""

    step: int
    metrics: Metrics
    batch: Row
    wait_s: float


def train(
    spec: RunSpec,
    should_stop: Callable[[], bool],
    seconds_left: Callable[[], float] = lambda: math.inf,
    beat: Callable[[bool], None] = lambda is_stepping: None,
) -> None:
    """Train to the end and write `result/`; resume where an earlier process of the same run was stopped.

    Every process of a run calls it; the first one writes what is written once.

    Args:
        should_stop: whether this process was told to stop; one is enough for all of them.
        seconds_left: how long the machine may still be there, once should_stop() became true.
        beat: called when a step is done, with whether nothing but another step comes next.

    Raises:
        Preempted: should_stop() became true; the newest step is saved.
        DataFault: a step is not finite or a spike beyond what may be left out, or a checkpoint is damaged and going
            back was not allowed.
        HostFault: a checkpoint could not be saved, or not in time.
        ConfigError: data, base, mesh or checkpoint do not belong together.
    """
    with _only_one(spec.run_dir) if jax.process_index() == 0 else nullcontext():
        if any(as_first([spec.result.is_dir()])):
            log.info("%s is finished", spec.run_dir)
            return
        _Trainer(spec, should_stop, seconds_left, beat).run()


def redo(spec: RunSpec, checkpoint: int, last: int) -> Iterator[tuple[int, Row, dict[str, Any]]]:
    """Compute the steps after a checkpoint (0 is the beginning) up to `last` again: (step, batch, numbers) of each.

    Nothing of the run is written.

    Raises:
        HostFault: a trainer holds the run.
        DataFault: the checkpoint is damaged or gone.
    """
    with _only_one(spec.run_dir):
        yield from _Trainer(spec, lambda: False, lambda: math.inf, lambda _: None).redo(checkpoint, last)


class _Trainer:
    def __init__(
        self,
        spec: RunSpec,
        should_stop: Callable[[], bool],
        seconds_left: Callable[[], float],
        beat: Callable[[bool], None],
    ):
        config = spec.config
        spec.check_files()
        mixture = spec.mixture()
        self._spec, self._config = spec, config
        self._should_stop, self._seconds_left, self._beat = should_stop, seconds_left, beat
        self._is_first = jax.process_index() == 0
        self._tokenizer = TextTokenizer(spec.tokenizer_dir, config.tokenizer_engine)
        self._sources = open_sources(spec.data_dir, mixture, config.seed, spec.taught_dir)
        require_equal_ids(self._sources, self._tokenizer)
        self._steps = config.steps(mixture["total_tokens"])
        self._optimizer = config.optimizer(self._steps)
        self._mesh = preflight(config)
        self._cfg = decoder_here(config, self._tokenizer, spec.base_dir)
        require_fit(self._cfg, self._mesh)
        feed = FeedConfig(mixture["kind"], config.seq_len, config.rows, config.streams, config.seed, config.loss_turns)
        self._share = Share.here(config.rows, self._mesh)
        self._batches = Batches(self._sources, self._tokenizer, feed, self._share.part, self._share.parts)
        self._agreed = Agreement(self._mesh)
        self._journal = Journal(spec.metrics, spec.saves, writes=self._is_first)
        self._left_out = LeftOut(config)
        self._step_s = 0.0  # of the newest; 0 is not known yet
        self._at = Position(0, 0, 0, None)
        planned = self._steps * config.batch_tokens
        if planned > 1.01 * mixture["total_tokens"]:
            times = planned / mixture["total_tokens"]
            log.warning("%s tokens are %.2f times the mixture: documents are seen more often", f"{planned:,}", times)
        if unread := unreached(mixture, planned):
            log.warning("%s tokens end before these phases of the mixture begin: %s", f"{planned:,}", ", ".join(unread))

    def run(self) -> None:
        remote, config = None, self._config
        if config.remote and self._is_first:
            remote = Remote(join(config.remote, self._spec.identity.digest()[:12]), config.confirm_within_s)
        checkpoints = Checkpoints(self._spec.checkpoints)
        began = time.monotonic()
        state = self._restore(Resume(self._spec, self._journal, checkpoints, remote)) or self._fresh()
        self._left_out.remember(self._journal.begin(self._at.step))
        spent = {"restore": time.monotonic() - began} if self._at.step else {}
        if self._is_first:
            mark(self._spec.goodput, "resume", step=self._at.step, spent=spent)
        self._laps = Laps(self._spec.goodput, writes=self._is_first)
        with Saves(self._spec, self._journal, checkpoints, remote) as saves:
            if self._at.step:
                saves.adopt(self._at.step)
            feed = prefetched(self._batches, self._config.feed_workers)
            try:
                if self._at.feed is not None:
                    feed.set_state(self._share.own_state(self._at.feed))
                state = self._loop(state, feed, saves)
                position = self._share.whole_state(feed.get_state())
                ledger = token_ledger(self._sources, self._tokenizer, self._batches.cfg, position)
                require_counted(ledger, tokens=self._at.tokens, learned=self._at.learned)
            finally:
                feed.close()
                self._journal.close()
        params = trained_weights(state.params, state.opt_state)
        export(self._spec, self._cfg, replace(state, params=params), self._tokenizer, ledger)

    def redo(self, checkpoint: int, last: int) -> Iterator[tuple[int, Row, dict[str, Any]]]:
        """See the function of that name."""
        feed, step_of = prefetched(self._batches, self._config.feed_workers), self._step()
        try:
            if checkpoint:
                try:
                    found = Checkpoints(self._spec.checkpoints).restore(self._like(), checkpoint)
                except CheckpointError as error:
                    raise DataFault(str(error)) from error
                state = self._with_frozen(found.state)
                feed.set_state(found.extra["feed"])
            else:
                state = self._fresh()
            for step in range(checkpoint + 1, last + 1):
                batch = next(feed)
                state, metrics = step_of(state, self._on_device(batch, step))
                yield step, batch, self._read(metrics)
        finally:
            feed.close()

    def _step(self) -> TrainStep:
        return compiled_together(
            make_train_step(
                self._cfg, self._optimizer, mesh=self._mesh, accumulate=self._config.accumulate, loss=self._loss()
            )
        )

    def _loop(self, state: TrainState, feed: Any, saves: Saves) -> TrainState:
        step_of = self._step()
        log.info("%s steps of %s tokens from step %s", self._steps, f"{self._config.batch_tokens:,}", self._at.step)
        pending: _Pending | None = None
        first = self._at.step + 1
        clock = time.monotonic()
        for step in range(first, self._steps + 1):
            began = time.monotonic()
            batch = next(feed)
            waited = time.monotonic() - began
            # Waiting while the devices compute costs nothing.
            is_idle = pending is None or is_finished(pending.metrics)
            self._laps.lap("data_wait" if is_idle else "step")
            state, metrics = step_of(state, self._on_device(batch, step))
            self._laps.lap("compile" if pending is None and step == first else "step")
            # The numbers of a step are read while the next one computes.
            if pending is not None:
                clock = self._finish(pending, clock, saves)
            pending = _Pending(step, metrics, batch, waited)
            saves.check()
            is_told = self._should_stop()
            stop = self._agreed(is_told, metrics["loss"])
            if stop and is_told and step < self._steps:
                self._say_if_it_fits(saves.took_s)
            if stop or step == self._steps or step % self._config.save_every_steps == 0:
                clock = self._finish(pending, clock, saves, is_stepping=False)
                pending = None
                identity = self._spec.identity.model_dump(mode="json")
                facts = {"identity": identity, "feed": self._share.whole_state(feed.get_state())}
                facts |= {"tokens": self._at.tokens, "learned": self._at.learned}
                saves.save(step, state, facts, is_last=stop)
                self._was_stalled()
                if stop and step < self._steps:
                    saves.confirm(max(0.0, self._seconds_left() - LEAVE_S))
                    self._was_stalled()
                    raise Preempted(f"stopped at step {step} of {self._steps}; it is saved, the same command resumes.")
        saves.confirm()
        self._was_stalled()
        return state

    def _finish(self, done: _Pending, clock: float, saves: Saves, *, is_stepping: bool = True) -> float:
        """Read the numbers of a step, check and write them; returns the time."""
        numbers = self._read(done.metrics)
        too_many = self._left_out.is_one_too_many(done.step, numbers)
        self._beat(is_stepping and not too_many)
        if too_many:
            batch = self._share.whole_batch(done.batch)
            saves.confirm()
            newest = self._journal.newest_save()
            raise dump_step(self._spec, done.step, batch, numbers, newest, *too_many, writes=self._is_first)
        tokens, learned = int(numbers["tokens"]), int(numbers["learned"])
        self._at = Position(done.step, self._at.tokens + tokens, self._at.learned + learned, None)
        now = time.monotonic()
        self._step_s = now - clock
        self._laps.lap("step")
        self._laps.reached(done.step)
        speed = tokens / max(now - clock, 1e-9)
        timing = {"seconds": now - clock, "tokens_per_s": speed, "wait_s": done.wait_s}
        if (share := mfu(self._cfg, speed / jax.device_count(), jax.devices()[0].device_kind)) is not None:
            timing["mfu"] = share
        line = {"step": done.step} | numbers | {"tokens": self._at.tokens, "learned": self._at.learned}
        self._journal.step(line | {name: round(value, 5) for name, value in timing.items()})
        if done.step % self._config.log_every == 0 or done.step == self._steps:
            log.info(
                "step %s/%s loss %s lr %.3g grad %s %.0f tokens/s",
                done.step, self._steps, said(numbers["loss"]), numbers["lr"], said(numbers["grad_norm"]), speed,
            )  # fmt: skip
        return now

    def _read(self, metrics: Metrics) -> Numbers:
        return read_numbers(metrics, [source.name for source in self._sources])

    def _was_stalled(self) -> None:
        """All time since the step was spent on its save; what is after it is another mark."""
        self._laps.lap("save_stall")
        self._laps.reached(self._at.step, must_write=True)

    def _say_if_it_fits(self, save_s: float) -> None:
        """Whether the step under way and a save, as long as the newest took, end before the machine does."""
        left = self._seconds_left()
        save = f"{save_s:.1f} s" if save_s else "an unknown time"
        measured = f"the newest step took {self._step_s:.1f} s, the newest save {save}"
        if self._step_s + save_s > left:
            log.warning("told to stop with %.1f s left: %s, so the save may not be finished", left, measured)
        else:
            log.info("told to stop with %.1f s left: %s", left, measured)

    def _fresh(self) -> TrainState:
        if self._spec.base_dir is None:
            return init_state(self._cfg, self._optimizer, seed=self._config.seed, mesh=self._mesh)
        lora, seed = self._cfg.lora, self._config.seed
        return state_of_model(self._base(), self._optimizer, lora=lora, seed=seed, mesh=self._mesh)

    def _base(self) -> Decoder:
        assert self._spec.base_dir is not None
        try:
            return load_hf(self._spec.base_dir, replace(self._cfg, lora=None), mesh=self._mesh)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def _like(self) -> TrainState:
        return abstract_state(self._cfg, self._optimizer, mesh=self._mesh)

    def _with_frozen(self, restored: TrainState) -> TrainState:
        """Frozen weights come from the base: they are in no checkpoint."""
        return replace(restored, frozen=split_model(self._base())[1]) if restored.frozen else restored

    def _restore(self, resume: Resume) -> TrainState | None:
        found = resume.restore(self._like())
        if found is None:
            return None
        extra = found.extra
        self._at = Position(found.step, extra["tokens"], extra["learned"], extra["feed"])
        log.info("resumed at step %s of %s", found.step, self._steps)
        return self._with_frozen(found.state)

    def _loss(self) -> Loss:
        return partial(
            next_token_loss,
            neftune_alpha=self._config.neftune_alpha,
            num_sources=len(self._sources),
            teacher_weight=self._config.teacher_weight if self._spec.taught_dir else 0.0,
        )

    def _on_device(self, batch: Row, step: int) -> dict[str, Any]:
        if self._config.neftune_alpha:
            # Numbers of (seed, step, row): a resumed step draws the same noise.
            seeds = np.random.PCG64([self._config.seed, step]).random_raw(self._config.rows)
            batch = batch | {"noise_B1": seeds.astype(np.uint32)[self._share.rows(self._config.rows), None]}
        return put_batch(batch, self._mesh, self._config.rows)


@contextmanager
def _only_one(run_dir: Path) -> Iterator[None]:
    """Hold the run directory; the kernel lets go when the process ends, however it ends.

    Raises:
        HostFault: another trainer still holds it.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / "trainer.lock").open("a+") as file:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    file.seek(0)
                    raise HostFault(
                        f"{run_dir} is held by another trainer (process {file.read().strip() or 'unknown'}) for more "
                        f"than {LOCK_WAIT_S:.0f} s: two would write the same checkpoints. Stop that process; this "
                        "command then resumes its run."
                    ) from None
                time.sleep(0.2)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
