"""Saving and restoring a run: arrays and the small facts beside them in one transaction, checked by digest.

A checkpoint is a directory `DIRECTORY/STEP/` that Orbax renames into place when all of it is written, so it is there
whole or not at all. It holds the state and one JSON object: what the caller gave (position in the data, token
ledger, …) and a digest of every array, computed on the devices before anything is written.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from model.loop import TrainState

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint is missing or is not what was saved."""


@dataclass(frozen=True)
class Restored:
    step: int
    state: TrainState
    extra: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run in one directory (absolute path or bucket URL).

    Saving returns as soon as the arrays are copied and writes in the background; `wait` or `close` before exit.
    """

    def __init__(self, directory: str | Path, *, keep: int = 3, keep_period: int | None = None):
        """Keep the last `keep` checkpoints and every one at a multiple of `keep_period` steps."""
        self.directory = str(directory if "://" in str(directory) else Path(directory).absolute())
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, keep_period=keep_period, create=True)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, step: int, state: TrainState, extra: dict[str, Any]) -> None:
        """Write state and `extra` (anything JSON can hold) as one checkpoint; the state may be donated at once."""
        record = {"arrays": _shapes(state), "digest": _digests(state), "extra": extra}
        args = ocp.args.Composite(state=ocp.args.StandardSave(_as_dict(state)), record=ocp.args.JsonSave(record))
        self._manager.save(step, args=args, force=True)

    def steps(self) -> list[int]:
        """Steps that can be restored, oldest first; those still being written are not among them."""
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def restore(self, like: TrainState, step: int | None = None) -> Restored:
        """The checkpoint of `step` (the newest if None) on the devices that `like` names (see loop.abstract_state).

        Every array is compared with its digest: a damaged checkpoint, or one of another model or optimizer, raises
        CheckpointError and is never used.
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
            record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
            if others := _differences(record["arrays"], _shapes(like)):
                raise CheckpointError(
                    f"Checkpoint {self.directory}/{step} holds another model or optimizer: {_some(others)} differ in "
                    "name, shape or type, and an array is never padded or cut to fit. "
                    "Resume with the config that wrote it, or start the run afresh in another directory."
                )
            args = ocp.args.Composite(state=ocp.args.StandardRestore(_as_dict(like)))
            state = _as_state(like, self._manager.restore(step, args=args)["state"])
            wrong = _differences(record["digest"], _digests(state))
        except CheckpointError:
            raise
        except Exception as error:  # whatever a damaged file makes the reader say
            raise self._damaged(step, steps, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
        if wrong:
            raise self._damaged(step, steps, f"the digest of {_some(wrong)} is not what was saved")
        logger.info("restored step %d from %s", step, self.directory)
        return Restored(step, state, record["extra"])

    def is_saving(self) -> bool:
        """Whether a save is still being written."""
        return self._manager.is_saving_in_progress()

    def wait(self) -> None:
        """Until everything saved is on storage; an error of a background write is raised here."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, step: int, steps: list[int], what: str) -> CheckpointError:
        others = [s for s in steps if s != step]
        return CheckpointError(
            f"Checkpoint {self.directory}/{step} cannot be used: {what}. A run resumes only from arrays that are bit "
            "for bit what was saved, because training on silently damaged weights costs more than the steps lost. "
            f"Delete that directory and resume from {_listed(others)}."
        )


def _listed(steps: list[int]) -> str:
    return f"steps {', '.join(map(str, steps))}" if steps else "no other step"


def _as_dict(state: TrainState) -> dict[str, Any]:
    """Names of arrays in storage: our own, so that a new optax or flax does not rename them."""
    return {"step": state.step, "params": state.params, "opt_state": dict(_leaves(state.opt_state))}


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    """Each leaf under a readable, unique name."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="."), leaf) for path, leaf in leaves]


def _as_state(like: TrainState, loaded: dict[str, Any]) -> TrainState:
    structure = jax.tree.structure(like.opt_state)
    names = [name for name, _ in _leaves(like.opt_state)]
    opt_state = jax.tree.unflatten(structure, [loaded["opt_state"][name] for name in names])
    return TrainState(loaded["step"], loaded["params"], opt_state)


def _digests(state: TrainState) -> dict[str, str]:
    sums = jax.device_get(_digest_arrays(dict(_leaves(_as_dict(state)))))
    return {name: "".join(f"{int(part):08x}" for part in parts) for name, parts in sums.items()}


@partial(jax.jit)
def _digest_arrays(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return {name: jnp.stack([_digest(array, 0x9E3779B9), _digest(array, 0x7FEB352D)]) for name, array in arrays.items()}


def _digest(x: jax.Array, seed: int) -> jax.Array:
    """32 bits that depend on every bit and its place, whatever the sharding: a sum of bijectively mixed elements.

    Integers add up the same in any order, and one changed element always changes the sum.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}")).astype(jnp.uint32)
    place = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        place = place * np.uint32(size & 0xFFFFFFFF) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    mixed = bits + (place + np.uint32(1)) * np.uint32(seed)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # the finalizer of MurmurHash3
        mixed = (mixed ^ (mixed >> shift)) * np.uint32(factor)
    return jnp.sum(mixed ^ (mixed >> 16), dtype=jnp.uint32)


def _shapes(state: TrainState) -> dict[str, list[Any]]:
    return {name: [list(x.shape), str(x.dtype)] for name, x in _leaves(_as_dict(state))}


def _some(names: list[str], limit: int = 4) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _differences(saved: dict[str, Any], found: dict[str, Any]) -> list[str]:
    return sorted(name for name in saved.keys() | found.keys() if saved.get(name) != found.get(name))
