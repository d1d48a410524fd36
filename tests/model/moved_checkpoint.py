"""`python moved_checkpoint.py DIRECTORY AXIS=PARTS …`: the sha256 of each array, restored on that mesh.

Without a checkpoint in the directory it trains one step on that mesh first, and saves.
"""

import hashlib
import json
import sys

import jax
import numpy as np

from model.checkpoint import Checkpoints
from model.config import MeshConfig
from model.loop import abstract_state, init_state, make_train_step
from model.sharding import make_mesh, put_batch
from tests.model.eight_devices import OPTIMIZER, SHAPE, a_batch
from tests.model.random_decoders import small_config


def main(directory: str, *axes: str) -> None:
    cfg = small_config(**SHAPE)
    mesh = make_mesh(MeshConfig(**{name: int(parts) for name, parts in (axis.split("=") for axis in axes)}))
    with Checkpoints(directory) as checkpoints:
        if not checkpoints.steps():
            state = init_state(cfg, OPTIMIZER, mesh=mesh)
            state, _ = make_train_step(cfg, OPTIMIZER, mesh=mesh)(state, put_batch(a_batch(), mesh))
            checkpoints.save(1, state, {})
        else:
            state = checkpoints.restore(abstract_state(cfg, OPTIMIZER, mesh=mesh)).state
    arrays = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state)}
    digests = {name: hashlib.sha256(np.asarray(array).tobytes()).hexdigest() for name, array in arrays.items()}
    parts = len(state.params["embed"].sharding.device_set)
    print(json.dumps({"digests": digests, "devices": len(jax.devices()), "parts": parts}))


if __name__ == "__main__":
    main(*sys.argv[1:])
