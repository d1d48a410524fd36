"""The hot path: what is carried from step to step, and the step."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from model import cpu
from model.compiler import compiler_options
from model.config import MESH_AXES, DecoderConfig, LoraConfig, OptimizerConfig
from model.decoder import Decoder
from model.guard import FINE, GuardState, keep_unless
from model.lora import joined, trainable
from model.losses import next_token_loss
from model.optimizer import learning_rate, make_optimizer
from model.sharding import TOKEN_AXES, batch_axes, sharding, spec, sum_over

Params = dict[str, Any]
Batch = Mapping[str, jax.Array]
Metrics = dict[str, jax.Array]
# loss(model, batch, z_loss=…) -> a sum over targets, and aux with at least loss_sum and weight_sum
Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
Gradients = Callable[[Params, Params, Batch], tuple[Params, dict[str, jax.Array]]]
TrainStep = Callable[["TrainState", Batch], tuple["TrainState", Metrics]]


@partial(jax.tree_util.register_dataclass, data_fields=["step", "params", "opt_state", "frozen"], meta_fields=[])
@dataclass(frozen=True)
class TrainState:
    """All that a step changes: a pytree of arrays."""

    step: jax.Array
    """Optimizer steps done, int32; those that the guard left out are not."""
    params: Params
    """Float32 master weights that are trained, as nested dicts, the names of `Decoder`'s attributes."""
    opt_state: Any
    frozen: Params = field(default_factory=dict)
    """Those that are not, beside adapters (`model/lora.py`); a checkpoint leaves them out."""

    @property
    def weights(self) -> Params:
        """All of them, for `join_model`."""
        return joined(self.params, self.frozen)


def split_model(model: Decoder) -> tuple[nnx.GraphDef[Decoder], Params]:
    """The structure of a decoder (hashable) and its weights as nested dicts; nothing is copied."""
    graph, state = nnx.split(model)
    return graph, nnx.to_pure_dict(state)


def join_model(cfg: DecoderConfig, params: Params) -> Decoder:
    """The decoder with these weights; nothing is copied."""
    return nnx.merge(nnx.graphdef(_abstract(cfg)), params)


def init_state(
    cfg: DecoderConfig, optimizer: OptimizerConfig, *, seed: int = 0, mesh: Mesh | None = None
) -> TrainState:
    """A fresh state, made where it will live; the same numbers on any mesh."""
    if mesh is None:
        return _random_state(cfg, optimizer, jax.random.key(seed))
    make = jax.jit(partial(_random_state, cfg, optimizer), out_shardings=state_sharding(cfg, optimizer, mesh))
    return make(jax.random.key(seed))


def state_of_model(
    model: Decoder,
    optimizer: OptimizerConfig,
    *,
    lora: LoraConfig | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
) -> TrainState:
    """A state at step 0 that trains these weights on. It takes their memory over: `model` is not to be used again.

    With `lora` the weights are frozen and adapters, drawn by the seed, are trained; at first they add nothing.
    """
    _, weights = split_model(model)
    cfg = replace(model.cfg, lora=lora)
    if mesh is None:
        adapters = _random_adapters(cfg, jax.random.key(seed)) if lora else {}
        return jax.jit(partial(_fresh, optimizer=optimizer), donate_argnums=0)(joined(adapters, weights))
    shardings = state_sharding(cfg, optimizer, mesh)
    if lora:
        make = jax.jit(partial(_random_adapters, cfg), out_shardings=shardings.params)
        params, frozen = make(jax.random.key(seed)), jax.device_put(weights, shardings.frozen)
    else:
        params, frozen = jax.device_put(weights, shardings.params), {}
    opt_state = jax.jit(make_optimizer(optimizer).init, out_shardings=shardings.opt_state)(params)
    return TrainState(jax.device_put(jnp.zeros((), jnp.int32), shardings.step), params, opt_state, frozen)


def abstract_params(cfg: DecoderConfig, *, mesh: Mesh | None = None) -> Params:
    """Shapes, types and shardings of the weights without their memory."""
    _, params = split_model(_abstract(cfg))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, params) if mesh is None else param_sharding(cfg, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), params, shardings)


def abstract_state(cfg: DecoderConfig, optimizer: OptimizerConfig, *, mesh: Mesh | None = None) -> TrainState:
    """Shapes, types and shardings of a state without its memory: what a restore needs to know."""
    state = jax.eval_shape(lambda: _fresh(split_model(Decoder(cfg, rngs=nnx.Rngs(0)))[1], optimizer))
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, state) if mesh is None else state_sharding(cfg, optimizer, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings)


def param_axes(cfg: DecoderConfig) -> Params:
    """The logical axes of each weight, in the tree of `TrainState.params`; stacked ones start with layers."""
    tree: Params = {}
    for path, param in nnx.to_flat_state(nnx.split(_abstract(cfg))[1]):
        *parents, name = map(str, path)
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        own = param.get_metadata()["axes"]
        node[name] = ("layers", *own) if parents[:1] == ["layers"] else own
    return tree


def param_sharding(cfg: DecoderConfig, mesh: Mesh) -> Params:
    """Where each weight lies on the mesh.

    Raises:
        ValueError: the mesh cuts something that is whole: heads, layers of a period, rows.
    """
    period = len(cfg.layer_pattern)
    for axis, name, size, unit in (
        ("tensor", "num_heads", cfg.num_heads, "a head"),
        ("tensor", "num_kv_heads", cfg.num_kv_heads, "a head"),
        ("stage", "num_layers", cfg.num_layers / period, f"a period of {period} layers"),
    ):
        if size % mesh.shape[axis]:
            raise ValueError(
                f"{name}={getattr(cfg, name)} cannot be cut by {axis}={mesh.shape[axis]}: every device has an equal "
                f"number of parts and {unit} stays whole. Use another {axis}, such as 1."
            )
    _, shapes = split_model(_abstract(cfg))
    return jax.tree.map(lambda x, axes: sharding(mesh, axes, x.shape), shapes, param_axes(cfg))


def state_sharding(cfg: DecoderConfig, optimizer: OptimizerConfig, mesh: Mesh) -> TrainState:
    """Where each array of a state lies: moments with their weights, counters everywhere."""
    state = jax.eval_shape(lambda: _fresh(split_model(Decoder(cfg, rngs=nnx.Rngs(0)))[1], optimizer))
    params, frozen = trainable(param_sharding(cfg, mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    opt_state = optax.tree.map_params(
        make_optimizer(optimizer),
        lambda _, where: where,
        state.opt_state,
        params,
        transform_non_params=lambda _: everywhere,
    )
    return TrainState(everywhere, params, opt_state, frozen)  # pyright: ignore[reportArgumentType]


def make_train_step(
    cfg: DecoderConfig,
    optimizer: OptimizerConfig,
    *,
    mesh: Mesh | None = None,
    accumulate: int = 1,
    loss: Loss = next_token_loss,
) -> TrainStep:
    """The compiled step: (state, batch) -> (next state, metrics). The state given is donated: use only the new one.

    The gradient is that of the mean over all targets of the batch, however many devices and parts it is cut into:
    with accumulate > 1 rows are taken in that many equal parts, one after another. The same inputs give the same bits.
    Metrics are float32 scalars: loss (mean cross entropy), z_loss, accuracy, grad_norm (before clipping), lr; and int32
    counts: tokens (those that are not padding) and learned (those that are a target with a weight). With experts also
    router_balance and router_z, without their weights; with a guard the int32 verdict (model/guard.py), and with a loss
    that tells sources apart, arrays source_loss_S (mean cross entropy) and source_weight_S.
    """
    if cfg.compute.cpu_kernels and mesh is not None and mesh.size > 1:
        raise ValueError(
            f"cpu_kernels=True on a mesh of {mesh.size} devices: they fix the layout of arrays, which the "
            "partitioner of several devices must be free to choose. Set cpu_kernels=False, or train on one device."
        )
    transform = make_optimizer(optimizer)
    graph = nnx.graphdef(_abstract(cfg))

    def sums(params: Params, frozen: Params, part: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return loss(nnx.merge(graph, joined(params, frozen)), part, z_loss=optimizer.z_loss)

    def gradients(params: Params, frozen: Params, batch: Batch) -> tuple[Params, dict[str, jax.Array]]:
        if accumulate == 1:
            return jax.grad(sums, has_aux=True)(params, frozen, batch)
        parts = {name: _parts(array, accumulate) for name, array in batch.items()}

        def add(total: Any, part: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.grad(sums, has_aux=True)(params, frozen, part)), None

        first = {name: array[0] for name, array in parts.items()}
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(jax.grad(sums, has_aux=True), params, frozen, first)
        )
        return jax.lax.scan(add, zeros, parts)[0]

    over_all = gradients if mesh is None or mesh.size == 1 else _on_mesh(gradients, cfg, mesh)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        grads, aux = over_all(state.params, state.frozen, batch)
        # A batch without any target changes nothing rather than dividing by zero.
        weight_sum = jnp.maximum(aux["weight_sum"], 1e-8)
        grads = jax.tree.map(lambda g: g / weight_sum, grads)
        loss, grad_norm = aux["loss_sum"] / weight_sum, optax.tree.norm(grads)
        updates, opt_state = transform.update(grads, state.opt_state, state.params, loss=loss, grad_norm=grad_norm)
        metrics = {
            "loss": loss,
            "z_loss": aux["z_loss_sum"] / weight_sum,
            "accuracy": aux["correct_sum"] / weight_sum,
            "grad_norm": grad_norm,
            "lr": jnp.asarray(learning_rate(optimizer)(state.step), jnp.float32),
            "tokens": jnp.sum(batch["segments_BT"] != 0),
            "learned": jnp.sum(batch["weights_BT"] != 0),
        }
        if cfg.moe:
            metrics |= {name: aux[f"{name}_sum"] / weight_sum for name in ("router_balance", "router_z")}
        if "source_loss_sum" in aux:
            metrics |= {
                "source_loss_S": aux["source_loss_sum"] / jnp.maximum(aux["source_weight_sum"], 1e-8),
                "source_weight_S": aux["source_weight_sum"],
            }
        done, params = state.step + 1, optax.apply_updates(state.params, updates)
        if optimizer.guard:
            assert isinstance(opt_state, GuardState)
            metrics["verdict"] = opt_state.verdict
            done, params = keep_unless(opt_state.verdict == FINE, (done, params), (state.step, state.params))
        return TrainState(done, params, opt_state, state.frozen), metrics  # pyright: ignore[reportArgumentType]

    if mesh is None:
        return jax.jit(
            step, donate_argnums=0, compiler_options=cpu.COMPILER_OPTIONS if cfg.compute.cpu_kernels else None
        )
    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(state_sharding(cfg, optimizer, mesh), everywhere),
        compiler_options=compiler_options(mesh),
    )


def _on_mesh(gradients: Gradients, cfg: DecoderConfig, mesh: Mesh) -> Gradients:
    """The same sums over all devices: each computes those of its own tokens, and what they share is added up."""
    specs, frozen_specs = trainable(jax.tree.map(spec, param_axes(cfg), is_leaf=lambda x: isinstance(x, tuple)))

    def local(params: Params, frozen: Params, batch: Batch) -> tuple[Params, dict[str, jax.Array]]:
        grads, aux = gradients(params, frozen, batch)
        # A weight of which devices with other tokens have copies; parts of one were added up as they were scattered.
        grads = jax.tree.map(lambda g, s: sum_over(g, *(a for a in TOKEN_AXES if a not in _names(s))), grads, specs)
        return grads, sum_over(aux, *TOKEN_AXES)

    def on_mesh(params: Params, frozen: Params, batch: Batch) -> tuple[Params, dict[str, jax.Array]]:
        batch_specs = {name: spec(batch_axes(name)) for name in batch}
        run = jax.shard_map(
            local,
            mesh=mesh,
            in_specs=(specs, frozen_specs, batch_specs),
            out_specs=(specs, PartitionSpec()),
            axis_names=set(MESH_AXES),
            check_vma=False,  # attention kernels do not say over which axes their results vary
        )
        return run(params, frozen, batch)

    return on_mesh


def _names(partition: PartitionSpec) -> tuple[str, ...]:
    return tuple(name for entry in partition if entry for name in ((entry,) if isinstance(entry, str) else entry))


@partial(jax.jit, static_argnums=(0, 1))
def _random_state(cfg: DecoderConfig, optimizer: OptimizerConfig, key: jax.Array) -> TrainState:
    return _fresh(split_model(Decoder(cfg, rngs=nnx.Rngs(key)))[1], optimizer)


@partial(jax.jit, static_argnums=0)
def _random_adapters(cfg: DecoderConfig, key: jax.Array) -> Params:
    return trainable(split_model(Decoder(cfg, rngs=nnx.Rngs(key)))[1])[0]


def _fresh(weights: Params, optimizer: OptimizerConfig) -> TrainState:
    params, frozen = trainable(weights)
    return TrainState(jnp.zeros((), jnp.int32), params, make_optimizer(optimizer).init(params), frozen)


def _abstract(cfg: DecoderConfig) -> Decoder:
    return nnx.eval_shape(lambda: Decoder(cfg, rngs=nnx.Rngs(0)))


def _parts(array_BT: jax.Array, parts: int) -> jax.Array:
    rows = array_BT.shape[0]
    if rows % parts:
        raise ValueError(
            f"{rows} rows in a batch cannot be taken in accumulate={parts} equal parts: a shorter part would be "
            f"another program. Use a batch whose rows are a multiple of {parts}."
        )
    return array_BT.reshape(parts, rows // parts, *array_BT.shape[1:])
