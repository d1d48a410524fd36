"""Saving and restoring a run: arrays and the small facts beside them in one transaction, checked by digest.

A checkpoint is a directory `DIRECTORY/STEP/` that Orbax renames into place when all of it is written, so it is there
whole or not at all; it is removed by renaming it away first. It holds the state and one JSON record: what the caller
gave (position in the data, token ledger, …), a digest of every array, computed on the devices before anything is
written, and a digest of the record itself.
"""

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from model.loop import TrainState
from model.sharding import on_host

logger = logging.getLogger(__name__)

FORMAT = 2  # of the record: 2 has one digest over the record too, and another digest of arrays
# Orbax measures its own bound with the wall clock, which may jump: it gets none, and who waits bounds the wait.
NO_BOUND_S = 10**8


class CheckpointError(ValueError):
    """A checkpoint is missing or is not what was saved."""


class OtherModelError(CheckpointError):
    """A checkpoint is whole, but of another model, optimizer or format."""


@dataclass(frozen=True)
class Restored:
    step: int
    state: TrainState
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in one local directory.

    Saving returns as soon as the arrays are copied and writes in the background; `wait` or `close` before exit.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory).absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        # Float32 weights hardly shrink: compressing them takes five times the CPU of writing them as they are.
        arrays = ocp.PyTreeCheckpointHandler(use_compression=False)
        self._checkpointer = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(state=arrays, record=ocp.JsonCheckpointHandler()),
            async_options=ocp.options.AsyncOptions(timeout_secs=NO_BOUND_S, create_directories_asynchronously=False),
        )

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return self.directory / str(step)

    def save(self, step: int, state: TrainState, extra: dict[str, Any]) -> None:
        """Write state and `extra` (anything JSON can hold) as one checkpoint; the state may be donated at once."""
        record = {"format": FORMAT, "arrays": _shapes(state), "digest": _digests(state), "extra": extra}
        record |= {"sha256": _sha256(record)}
        args = ocp.args.Composite(state=ocp.args.PyTreeSave(_as_dict(state)), record=ocp.args.JsonSave(record))
        self._checkpointer.save(self.path(step), args=args)

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first; those still being written are not among them."""
        return sorted(int(entry.name) for entry in self.directory.iterdir() if entry.name.isdigit())

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """The checkpoint of `step` (the newest if None) on the devices that `like` names (see loop.abstract_state).

        Frozen weights are no part of a checkpoint: those of `like` are given back.

        Raises:
            CheckpointError: there is none, or it is damaged: every array and the record are compared with digests.
            OtherModelError: it is whole, but of another model or optimizer, or of another version of this file.
        """
        steps = self.steps()
        if step is None and steps:
            step = steps[-1]
        if step not in steps or step is None:
            raise CheckpointError(
                f"No checkpoint of step {step} in {self.directory}, which has {_listed(steps)}: a run resumes only "
                "from a finished checkpoint. Name one of those steps, or start the run afresh."
            )
        try:
            with _reading(self.path(step)):
                return self._read(step, like)
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged file makes the reader say
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            raise self._damaged(step, what) from error

    def delete(self, step: int) -> bool:
        """Remove a checkpoint; False when it stays because somebody is reading it.

        It is renamed first: a kill leaves a whole checkpoint or none.
        """
        doomed = self.directory / f".deleted-{step}"
        shutil.rmtree(doomed, ignore_errors=True)
        held = os.open(self.path(step), os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.rename(self.path(step), doomed)
        except BlockingIOError:
            return False
        finally:
            os.close(held)
        shutil.rmtree(doomed)
        return True

    def discard(self, step: int) -> None:
        """Take away a damaged checkpoint, also while other processes are reading it; `sweep` removes it."""
        with contextlib.suppress(FileNotFoundError):  # of several that found the damage another was faster
            os.rename(self.path(step), self.directory / f".damaged-{step}-{os.getpid()}")

    def discarded(self) -> list[int]:
        """Steps that were taken away since the last sweep."""
        return [int(path.name.split("-")[1]) for path in self.directory.glob(".damaged-*")]

    def sweep(self) -> None:
        """Remove what a killed save, fetch or delete left; only for the one process that writes here."""
        for entry in self.directory.iterdir():
            if entry.is_dir() and not entry.name.isdigit():
                shutil.rmtree(entry, ignore_errors=True)

    def wait(self) -> None:
        """Until everything saved is on storage; an error of a background write is raised here."""
        self._checkpointer.wait_until_finished()

    def close(self) -> None:
        self._checkpointer.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, step: int, like: TrainState) -> Restored:
        read = partial(self._checkpointer.restore, self.path(step))
        record = read(args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        if record.get("format", 1) != FORMAT:
            raise OtherModelError(
                f"Checkpoint {self.path(step)} has format {record.get('format', 1)}, this program reads {FORMAT}: its "
                "digests mean something else. Resume with the version that wrote it, or start the run afresh."
            )
        if record.pop("sha256", None) != _sha256(record):
            raise self._damaged(step, "the digest of its record is not what was saved")
        if others := _differences(record["arrays"], _shapes(like)):
            raise OtherModelError(
                f"Checkpoint {self.path(step)} holds another model or optimizer: {_some(others)} differ in "
                "name, shape or type, and an array is never padded or cut to fit. "
                "Resume with the config that wrote it, or start the run afresh in another directory."
            )
        item = _as_dict(like)
        args = ocp.args.PyTreeRestore(item, restore_args=ocp.checkpoint_utils.construct_restore_args(item))
        state = _as_state(like, read(args=ocp.args.Composite(state=args))["state"])
        if wrong := _differences(record["digest"], _digests(state)):
            raise self._damaged(step, f"the digest of {_some(wrong)} is not what was saved")
        logger.info("restored step %d from %s", step, self.directory)
        return Restored(step, state, record["extra"])

    def _damaged(self, step: int, what: str) -> CheckpointError:
        return CheckpointError(
            f"Checkpoint {self.path(step)} cannot be used: {what}. A run resumes only from arrays that are bit "
            "for bit what was saved, because training on silently damaged weights costs more than the steps lost. "
            f"Delete that directory and resume from {_listed([s for s in self.steps() if s != step])}."
        )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Nobody removes the directory meanwhile; the kernel lets go when this process ends, however it ends."""
    held = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_SH)
        yield
    finally:
        os.close(held)


def _sha256(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _listed(steps: list[int]) -> str:
    return f"steps {', '.join(map(str, steps))}" if steps else "no other step"


def _as_dict(state: TrainState) -> dict[str, Any]:
    """Names of arrays in storage: our own, so that a new optax or flax does not rename them; without frozen weights."""
    return {"step": state.step, "params": state.params, "opt_state": dict(_leaves(state.opt_state))}


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    """Each leaf under a readable, unique name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _as_state(like: TrainState, loaded: dict[str, Any]) -> TrainState:
    structure = jax.tree.structure(like.opt_state)
    names = [name for name, _ in _leaves(like.opt_state)]
    opt_state = jax.tree.unflatten(structure, [loaded["opt_state"][name] for name in names])
    return TrainState(loaded["step"], loaded["params"], opt_state, like.frozen)


def _digests(state: TrainState) -> dict[str, str]:
    sums = _digest_arrays(dict(_leaves(_as_dict(state))))
    return {name: "".join(f"{int(part):08x}" for part in on_host(parts)) for name, parts in sums.items()}


@partial(jax.jit)
def _digest_arrays(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: _digest(array) for name, array in arrays.items()}


def _digest(x: jax.Array) -> jax.Array:
    """64 bits that depend on every bit and its place, whatever the sharding: two sums of bijectively mixed elements.

    Integers add up the same in any order, and one changed element always changes both sums. They are taken in one
    reduction, because the CPU back end turns that into vector code and a plain sum of integers not.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size & 0xFFFFFFFF) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    mixed = bits + (place + np.uint32(1)) * np.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finalizer of MurmurHash3
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    mixed ^= mixed >> 16
    weighted = mixed * (2 * place + 1)  # an odd factor keeps it a bijection
    zero = jnp.uint32(0)
    sums = jax.lax.reduce(
        (mixed, weighted), (zero, zero), lambda a, b: (a[0] + b[0], a[1] + b[1]), tuple(range(x.ndim))
    )
    return jnp.stack(sums)


def _shapes(state: TrainState) -> dict[str, list[Any]]:
    return {name: [list(x.shape), str(x.dtype)] for name, x in _leaves(_as_dict(state))}


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _differences(saved: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return sorted(name for name in saved.keys() | found.keys() if saved.get(name) != found.get(name))
