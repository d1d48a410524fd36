"""Rows through stages. That losses and gradients are those of one device is shown in test_sharding."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from model.pipeline import rows_here, through_stages


def traced(stages: int, rows: int, microbatches: int):
    """Shapes only: no such devices are needed."""

    def run(x_BTD, kept):
        return x_BTD + kept[..., None], jnp.sum(x_BTD)

    def local(x_BTD, kept_BT):
        y_BTD, total = through_stages(run, x_BTD, kept_BT, microbatches)
        assert rows_here(kept_BT).shape == y_BTD.shape[:2]
        return y_BTD, total[None]

    mesh = AbstractMesh((stages,), ("stage",))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=(P(), P()), out_specs=(P("stage"), P("stage")), check_vma=False)
    return jax.eval_shape(mapped, jnp.zeros((rows, 5, 3)), jnp.zeros((rows, 5)))


def test_every_stage_has_its_part_of_the_rows_in_the_end():
    y_BTD, totals = traced(stages=2, rows=8, microbatches=4)
    assert y_BTD.shape == (8, 5, 3)
    assert totals.shape == (2,)


@pytest.mark.parametrize(("rows", "microbatches"), [(8, 3), (3, 3)])
def test_rows_that_make_no_equal_parts_are_refused(rows, microbatches):
    with pytest.raises(ValueError, match=f"{rows} rows on a device cannot be cut into microbatches={microbatches}"):
        traced(stages=2, rows=rows, microbatches=microbatches)


def test_one_stage_runs_all_rows_at_once():
    y, total = through_stages(lambda x, rows: (x * rows, x.sum()), jnp.full((3, 2, 1), 2.0), jnp.float32(5), 4)
    assert (y.shape, float(y[0, 0, 0]), float(total)) == ((3, 2, 1), 10.0, 12.0)
    assert rows_here({"a": y})["a"] is y
