"""A mixture of experts in place of the MLP: a router sends every token to a few of many gated units.

No token is dropped: tokens are sorted by expert, and every expert multiplies as many rows as it gets. Along the mesh
axis `expert` each device holds some of the experts, sees the tokens of its whole group, and gives back what its experts
make of them.

Shape letters in this file: B batch, T position, N tokens, E experts (X: those on this device), K experts of a token,
M = N * K rows, each a token on its way to one expert; D embed_dim, F mlp_dim.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from model import cpu
from model.config import DecoderConfig
from model.mlp import GATED, new_weight
from model.sharding import RULES, enter_tensor, leave_tensor, parts, place, sum_over, whole_rows

# Devices along these hold other tokens of the same layer.
BATCH_AXES = (*RULES["batch"], *RULES["length"])
SMALLEST_VARIANCE = 1e-6  # of router logits that are standardised; below it they count as equal


class RouterSums(NamedTuple):
    """Sums over the tokens of this device that are not padding, float32 scalars; see `MoEConfig` for what of."""

    balance: jax.Array
    z: jax.Array


class MoE(nnx.Module):
    """A router and the gated units that it chooses from."""

    def __init__(self, cfg: DecoderConfig, *, rngs: nnx.Rngs):
        assert cfg.moe is not None
        D, F, E = cfg.embed_dim, cfg.mlp_dim, cfg.moe.num_experts
        self.router = new_weight(rngs, (E, D), ("router", "embed"), D)
        self.gate = new_weight(rngs, (E, F, D), ("experts", "mlp", "embed"), D)
        self.up = new_weight(rngs, (E, F, D), ("experts", "mlp", "embed"), D)
        self.down = new_weight(rngs, (E, F, D), ("experts", "mlp", "embed"), F)
        self.moe, self.activation, self.compute = cfg.moe, cfg.activation, cfg.compute

    def __call__(self, x_BTD: jax.Array, is_token_BT: jax.Array) -> tuple[jax.Array, RouterSums]:
        """What the experts make of x, and the sums over the places that hold a token (not padding)."""
        x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
        gates_NK, choices_NK, sums = self._route(x_ND, is_token_BT.reshape(-1))
        run = self._all_experts if self.compute.cpu_kernels else self._chosen_experts
        x_ND, gates_NK, choices_NK = whole_group(enter_tensor(x_ND), enter_tensor(gates_NK), choices_NK)
        y_ND = leave_tensor(own_tokens(run(x_ND, gates_NK, choices_NK)))
        return checkpoint_name(y_ND.reshape(x_BTD.shape), "mlp_out"), sums

    def _route(self, x_ND: jax.Array, is_token_N: jax.Array) -> tuple[jax.Array, jax.Array, RouterSums]:
        """Weights and indices of each token's experts [N, K], the most likely first."""
        # Wholly in float32: a rounded logit sends a token elsewhere.
        x_ND = x_ND.astype(jnp.float32)
        logits_NE = jnp.einsum("ND,ED->NE", x_ND, self.router[...], precision=lax.Precision.HIGHEST)
        scores_NE = standardised(logits_NE) if self.moe.normalise_router_logits else logits_NE
        probs_NE = jax.nn.softmax(scores_NE, axis=-1)
        gates_NK, choices_NK = lax.top_k(probs_NE, self.moe.experts_per_token)
        gates_NK /= jnp.sum(gates_NK, axis=-1, keepdims=True)
        return gates_NK, choices_NK, router_sums(logits_NE, probs_NE, choices_NK, is_token_N)

    def _chosen_experts(self, x_ND: jax.Array, gates_NK: jax.Array, choices_NK: jax.Array) -> jax.Array:
        """The sum of what the experts on this device make of the tokens that chose them."""
        N, K = choices_NK.shape
        X = self.gate.shape[0]
        expert_M = choices_NK.reshape(-1) - place("expert") * X
        is_here_MX = expert_M[:, None] == jnp.arange(X)
        # Rows of other devices' experts stand last, in no group.
        order_M = jnp.argsort(jnp.where(jnp.any(is_here_MX, axis=1), expert_M, X), stable=True)
        back_M = jnp.argsort(order_M)
        sizes_X = jnp.sum(is_here_MX, axis=0, dtype=jnp.int32)
        x_MD = permuted(jnp.repeat(x_ND, K, axis=0), order_M, back_M)
        gate_XFD, up_XFD, down_XFD = (whole_rows(w[...], x_ND.dtype) for w in (self.gate, self.up, self.down))
        h_MF = GATED[self.activation](grouped(x_MD, gate_XFD, sizes_X, 2), grouped(x_MD, up_XFD, sizes_X, 2))
        gates_M1 = permuted(gates_NK.reshape(-1, 1), order_M, back_M)
        down_MD: jax.Array = grouped(h_MF, down_XFD, sizes_X, 1)
        y_MD = (down_MD.astype(jnp.float32) * gates_M1).astype(x_ND.dtype)
        y_NKD = permuted(y_MD, back_M, order_M).reshape(N, K, -1)
        return jnp.sum(y_NKD, axis=1, dtype=jnp.float32).astype(x_ND.dtype)

    def _all_experts(self, x_ND: jax.Array, gates_NK: jax.Array, choices_NK: jax.Array) -> jax.Array:
        """The same where every expert takes every token: on one CPU, whose `ragged_dot` multiplies even more."""
        y_ND = jnp.zeros(x_ND.shape, jnp.float32)
        for expert in range(self.gate.shape[0]):
            gate_FD, up_FD, down_FD = (w[expert] for w in (self.gate[...], self.up[...], self.down[...]))
            h_NF = cpu.GATED[self.activation](cpu.linear_rows(x_ND, gate_FD), cpu.linear_rows(x_ND, up_FD))
            gates_N1 = jnp.sum(jnp.where(choices_NK == expert, gates_NK, 0), axis=1, keepdims=True)
            y_ND += gates_N1 * cpu.linear_columns(h_NF, down_FD).astype(jnp.float32)
        return y_ND.astype(x_ND.dtype)


def standardised(logits_NE: jax.Array) -> jax.Array:
    """Mean 0 and deviation 1 over the experts."""
    centred_NE = logits_NE - jnp.mean(logits_NE, axis=-1, keepdims=True)
    variance_N1 = jnp.mean(jnp.square(centred_NE), axis=-1, keepdims=True)
    return centred_NE * lax.rsqrt(variance_N1 + SMALLEST_VARIANCE)


def router_sums(logits_NE: jax.Array, probs_NE: jax.Array, choices_NK: jax.Array, is_token_N: jax.Array) -> RouterSums:
    """What the router's losses are made of. Loads and mean probabilities are those of all devices."""
    E = probs_NE.shape[1]
    weight_N1 = is_token_N.astype(jnp.float32)[:, None]
    is_chosen_NE = jnp.any(choices_NK[:, :, None] == jnp.arange(E), axis=1)
    own = (jnp.sum(weight_N1), jnp.sum(weight_N1 * is_chosen_NE, axis=0), jnp.sum(weight_N1 * probs_NE, axis=0))
    # Under autodiff the transpose of this sum is a sum, as it must be: each device's loss is made with all of them.
    tokens, load_E, probs_E = sum_over(own, *BATCH_AXES)
    balance = E * jnp.sum(load_E * probs_E) / jnp.square(jnp.maximum(tokens, 1))
    z = jnp.sum(weight_N1[:, 0] * jnp.square(jax.nn.logsumexp(logits_NE, axis=-1)))
    return RouterSums(own[0] * balance, z)


def whole_group(*arrays: jax.Array) -> list[jax.Array]:
    """The tokens of all devices along `expert`; gradients are added up and each device gets those of its own."""
    if parts("expert") == 1:
        return list(arrays)
    return [lax.all_gather(array, "expert", axis=0, tiled=True) for array in arrays]


def own_tokens(y_ND: jax.Array) -> jax.Array:
    """This device's tokens of the sum over devices along `expert`."""
    return lax.psum_scatter(y_ND, "expert", scatter_dimension=0, tiled=True) if parts("expert") > 1 else y_ND


@jax.custom_vjp
def permuted(x: jax.Array, order_M: jax.Array, back_M: jax.Array) -> jax.Array:
    """x[order]. Its gradient is d[back], where autodiff, which knows of no permutations, would add rows up."""
    return x[order_M]


permuted.defvjp(
    lambda x, order_M, back_M: (x[order_M], back_M),
    lambda back_M, d: (d[back_M], None, None),
)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def grouped(x: jax.Array, w_XFD: jax.Array, sizes_X: jax.Array, axis: int) -> jax.Array:
    """Rows [M, F or D] times the weight of their group over its `axis`: [M, D or F] in the type of x.

    The first sizes[0] rows belong to group 0 and so on; rows beyond the last group are zero.
    """
    return _rows(x, w_XFD, sizes_X, axis)


def _grouped_fwd(x: jax.Array, w_XFD: jax.Array, sizes_X: jax.Array, axis: int) -> Any:
    return _rows(x, w_XFD, sizes_X, axis), (x, w_XFD, sizes_X)


def _grouped_bwd(axis: int, kept: Any, dy: jax.Array) -> Any:
    x, w_XFD, sizes_X = kept
    rows_MF, rows_MD = (dy, x) if axis == 2 else (x, dy)
    d_w = lax.platform_dependent(rows_MF, rows_MD, sizes_X, tpu=_tpu_weight_gradient, default=_weight_gradient)
    return _rows(dy, w_XFD, sizes_X, 3 - axis), d_w.astype(w_XFD.dtype), None


grouped.defvjp(_grouped_fwd, _grouped_bwd)


def _rows(x: jax.Array, w_XFD: jax.Array, sizes_X: jax.Array, axis: int) -> jax.Array:
    dims = lax.RaggedDotDimensionNumbers((((1,), (axis,)), ((), ())), [0], [0])
    y = lax.ragged_dot_general(x, w_XFD, sizes_X, dims, preferred_element_type=jnp.float32).astype(x.dtype)
    if parts("expert") == 1:
        return y
    # Nobody promises what stands in rows beyond the last group.
    return jnp.where(jnp.arange(y.shape[0])[:, None] < jnp.sum(sizes_X), y, 0)


def _weight_gradient(rows_MF: jax.Array, rows_MD: jax.Array, sizes_X: jax.Array) -> jax.Array:
    """For each group the sum of outer products of its rows: float32 [X, F, D]."""
    dims = lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])
    return lax.ragged_dot_general(rows_MF, rows_MD, sizes_X, dims, preferred_element_type=jnp.float32)


def _tpu_weight_gradient(rows_MF: jax.Array, rows_MD: jax.Array, sizes_X: jax.Array) -> jax.Array:
    """The same by a kernel, where `ragged_dot` on TPU would multiply all rows for every group (docs/decisions)."""
    from jax.experimental.pallas.ops.tpu.megablox.gmm import tgmm  # a second to import, and for TPUs only

    tiling = (math.gcd(rows_MF.shape[0], 512), 512, 1024)
    return tgmm(rows_MF.T, rows_MD, sizes_X, jnp.float32, tiling)
