"""What a model, a mesh and an optimizer are: frozen values, checked when made, JSON-able by `dataclasses.asdict`."""

import math
from dataclasses import dataclass, field
from typing import Literal

LOCAL, GLOBAL = "local", "global"
# From the slowest links to the fastest: what is last lies on neighbouring chips.
MESH_AXES = ("stage", "data", "fsdp", "expert", "context", "tensor")
# What the backward pass finds kept, by name; the rest of a layer it computes again from the layer's input. Ordered by
# memory. Names are those given with `checkpoint_name` in `model/decoder.py` and the attention kernels.
REMAT: dict[str, tuple[str, ...]] = {
    "full": (),
    "outputs": ("mlp_out", "attn_res"),
    "projections": ("mlp_out", "attn_res", "attention_out", "query", "key", "value"),
}


# The weights that may have an adapter, and whether they read embed_dim (else they write it).
LORA_TARGETS = {"query": True, "key": True, "value": True, "out": False, "gate": True, "up": True, "down": False}


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the same mathematics is computed: changes speed and memory, and results only by rounding."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of activations and matmul operands. Master weights, softmax, norms and the loss stay float32."""
    scan_layers: bool = True
    """One compiled layer body in a loop (small programs, TPU) or every layer written out (faster on CPU)."""
    remat: Literal["none", "full", "outputs", "projections"] = "none"
    """What the backward pass computes again: nothing, or each layer from its input and what `REMAT` keeps. Outputs are
    those of attention and MLP; projections are queries, keys and values too, which leaves only gate and up."""
    attention: Literal["auto", "reference", "chunked", "splash"] = "auto"
    """Which implementation of `model.attention.packed_attention`; auto chooses by platform and length. Name one to
    compile for hardware that is not there."""
    loss_chunk_tokens: int = 2048
    """Logits in memory at a time, over all sequences of a batch; the loss never holds [tokens, vocab] beyond this."""
    quantization: Literal["none", "int8", "fp8"] = "none"
    """Products with the weights of attention and MLP in 8 bits, forward and backward (`model/quantized.py`; needs the
    [quant] extra). Coarser than bfloat16. Experts, the embedding and the scores of words stay in dtype."""
    cpu_kernels: bool = False
    """Use `model/cpu.py` in place of plain autodiff; one process with one CPU device only."""
    microbatches: int = 1
    """Parts that the rows of a device are taken in on their way through the stages of a pipeline; of the time a stage
    waits (stages - 1) / (microbatches + stages - 1)."""

    def __post_init__(self) -> None:
        _choice("dtype", self.dtype, ("float32", "bfloat16"))
        _choice("remat", self.remat, ("none", *REMAT))
        _choice("attention", self.attention, ("auto", "reference", "chunked", "splash"))
        _choice("quantization", self.quantization, ("none", "int8", "fp8"))
        if self.cpu_kernels and self.quantization != "none":
            raise ValueError(
                f"cpu_kernels=True with quantization={self.quantization!r}: the kernels for CPUs multiply in dtype, so "
                "the quantization would be ignored. Set cpu_kernels=False, or quantization='none'."
            )
        for name in ("loss_chunk_tokens", "microbatches"):
            _at_least(name, getattr(self, name), 1)


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How positions are stretched beyond the length that a model was first trained on."""

    factor: float
    """Wavelengths become this many times longer."""
    original_max_seq_len: int | None = None
    """None stretches every wavelength (Gemma 3). Otherwise only those longer than this length over low_freq_factor are,
    those shorter than it over high_freq_factor are kept, and between them the two are mixed (Llama 3.1)."""
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self) -> None:
        for name in ("factor", "low_freq_factor"):
            _positive(name, getattr(self, name))
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor={self.high_freq_factor} is not above low_freq_factor={self.low_freq_factor}: "
                "wavelengths between the two bounds are mixed. Llama 3.1 has 4 and 1."
            )


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """A mixture of experts in place of each layer's MLP, and what keeps its router in order."""

    num_experts: int
    experts_per_token: int
    """A token goes to the most likely ones, and their weights are scaled to sum to one (Mixtral)."""
    load_balance_weight: float = 0.0
    """Of E x sum over experts of (tokens per token) x (mean probability), averaged over layers; experts_per_token when
    the load is even (Switch Transformer, as transformers' `router_aux_loss_coef` counts it)."""
    z_loss_weight: float = 0.0
    """Of logsumexp(router logits)^2 per token, averaged over layers (ST-MoE, arXiv 2202.08906)."""
    normalise_router_logits: bool = False
    """Each token's router logits get mean 0 and deviation 1 over the experts (Skywork-MoE, arXiv 2406.06563)."""

    def __post_init__(self) -> None:
        _at_least("num_experts", self.num_experts, 2)
        _at_least("experts_per_token", self.experts_per_token, 1)
        for name in ("load_balance_weight", "z_loss_weight"):
            _at_least(name, getattr(self, name), 0)
        if self.experts_per_token > self.num_experts:
            raise ValueError(
                f"experts_per_token={self.experts_per_token} is more than num_experts={self.num_experts}: a token goes "
                f"to different experts. Use {self.num_experts} or fewer for experts_per_token."
            )


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters beside frozen weights (`model/lora.py`)."""

    rank: int
    alpha: float
    """Adapters are multiplied by alpha / rank."""
    targets: tuple[str, ...] = tuple(LORA_TARGETS)
    """Weights that have one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", tuple(self.targets))  # a list, as JSON has it, would not be hashable
        _at_least("rank", self.rank, 1)
        _positive("alpha", self.alpha)
        for name in self.targets or ("",):
            _choice("targets", name, tuple(LORA_TARGETS))


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The shape and the constants of one decoder; `model/families` holds the published ones."""

    family: str
    """Key of `model.families.FAMILIES`: weight names, chat template, Hugging Face config."""
    vocab_size: int
    embed_dim: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_dim: int
    """Width of one branch of the gated unit, of each expert where there are several."""
    max_seq_len: int
    """Longest sequence the model is meant for; a cache or a packed row may not be longer."""
    query_scale: float
    """Queries are multiplied by it before the dot product with keys."""
    attn_softcap: float | None = None
    """Attention logits pass through cap * tanh(x / cap); None leaves them as they are."""
    final_softcap: float | None = None
    local_window: int | None = None
    """A token in a local layer sees itself and the local_window - 1 tokens before it."""
    layer_pattern: tuple[str, ...] = (GLOBAL,)
    """Kinds of the first layers, repeated over the depth."""
    activation: Literal["gelu", "silu"] = "gelu"
    """Of the gate in the MLP; gelu is the tanh approximation."""
    rope_base: float = 10_000.0
    local_rope_base: float | None = None
    """Of local layers, which are never scaled; None gives them what global layers have."""
    rope_scaling: RopeScaling | None = None
    norm_eps: float = 1e-6
    norm_offset: float = 0.0
    """Added to norm weights: 1 where a family stores them as their distance from one (Gemma)."""
    post_norms: bool = False
    """Norms also after attention and MLP, before the residual is added (Gemma)."""
    qk_norms: bool = False
    """Norms over the head dimension of queries and keys, before they are rotated (Gemma 3)."""
    scale_embeddings: bool = False
    """Embeddings are multiplied by sqrt(embed_dim) (Gemma)."""
    tie_embeddings: bool = True
    """One table reads tokens and scores them; otherwise a second one scores."""
    moe: MoEConfig | None = None
    """Experts in place of each layer's MLP; None has one gated unit for all tokens."""
    lora: LoraConfig | None = None
    """Train adapters only; None trains every weight."""
    compute: ComputeConfig = field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        for name in ("vocab_size", "embed_dim", "num_layers", "num_heads", "num_kv_heads", "head_dim", "mlp_dim"):
            _at_least(name, getattr(self, name), 1)
        _at_least("max_seq_len", self.max_seq_len, 1)
        for name in ("query_scale", "rope_base", "norm_eps"):
            _positive(name, getattr(self, name))
        for name in ("attn_softcap", "final_softcap", "local_rope_base", "local_window"):
            if getattr(self, name) is not None:
                _positive(name, getattr(self, name))
        _choice("activation", self.activation, ("gelu", "silu"))
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads={self.num_heads} is not a multiple of num_kv_heads={self.num_kv_heads}: "
                "every key/value head serves the same number of query heads. "
                f"Use a divisor of {self.num_heads} for num_kv_heads."
            )
        if self.moe and self.lora and (experts := {"gate", "up", "down"} & set(self.lora.targets)):
            raise ValueError(
                f"lora.targets={self.lora.targets} names {', '.join(sorted(experts))} of a mixture of experts: experts "
                "have no adapters. Use query, key, value and out."
            )
        if self.head_dim % 2:
            raise ValueError(
                f"head_dim={self.head_dim} is odd: rotary position embedding turns pairs of dimensions, "
                f"so a lone one has no partner. Use {self.head_dim + 1} or another even number."
            )
        if not self.layer_pattern or set(self.layer_pattern) - {LOCAL, GLOBAL}:
            raise ValueError(
                f"layer_pattern={self.layer_pattern} must be a non-empty tuple of {LOCAL!r} and {GLOBAL!r}: "
                "it says which layers see only local_window tokens. Gemma 2 has ('local', 'global')."
            )
        if LOCAL in self.layer_pattern and self.local_window is None:
            raise ValueError(
                f"layer_pattern={self.layer_pattern} has local layers and local_window is None: a local layer sees a "
                "number of tokens. Set local_window, or make all layers global."
            )

    @property
    def layer_windows(self) -> tuple[int | None, ...]:
        """For each layer its window in tokens, None where it sees everything before it."""
        kinds = [self.layer_pattern[i % len(self.layer_pattern)] for i in range(self.num_layers)]
        return tuple(self.local_window if kind == LOCAL else None for kind in kinds)

    @property
    def num_params(self) -> int:
        """Trained numbers; an embedding table that also scores is counted once."""
        return self._params(self.moe.num_experts if self.moe else 1)

    @property
    def num_active_params(self) -> int:
        """Numbers that one token meets: all of them but the experts that it does not go to."""
        return self._params(self.moe.experts_per_token if self.moe else 1)

    def _params(self, experts: int) -> int:
        attention = self.embed_dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
        norms = self.embed_dim * (4 if self.post_norms else 2) + (2 * self.head_dim if self.qk_norms else 0)
        router = self.embed_dim * self.moe.num_experts if self.moe else 0
        layer = attention + router + experts * 3 * self.embed_dim * self.mlp_dim + norms
        tables = self.vocab_size * self.embed_dim * (1 if self.tie_embeddings else 2)
        return tables + self.num_layers * layer + self.embed_dim


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with a schedule. Defaults are those of the Swallow scripts (recipes.md 7.3)."""

    peak_lr: float
    total_steps: int
    schedule: Literal["cosine", "wsd", "constant"] = "cosine"
    warmup_steps: int = 0
    """Linear rise from peak_lr / warmup_steps to peak_lr."""
    final_lr_fraction: float = 0.1
    """Learning rate of the last step as a fraction of peak_lr (cosine and wsd)."""
    decay_fraction: float = 0.2
    """Part of total_steps that wsd spends on its linear decay."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.1
    """Decoupled, times the learning rate; norm weights are left out (Megatron-LM leaves out vectors)."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this global norm; 0 switches clipping off."""
    z_loss: float = 0.0
    """Weight of logsumexp(logits)^2, which keeps logits near zero; PaLM used 1e-4."""
    ema_decay: float = 0.0
    """Of a running mean of the weights, per step; 0 keeps none."""
    guard: bool = False
    """Leave out steps whose loss or gradient is not finite, or a spike (model/guard.py)."""
    spike_factor: float = 0.0
    """Robust standard deviations above the median from which loss or gradient norm is a spike; 0 finds none."""
    spike_window: int = 128
    """Finite steps that median and deviation are taken over; before so many, nothing is a spike."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema_decay < 1:
            raise ValueError(
                f"ema_decay={self.ema_decay} is outside 0 to 1: it is the part of the mean that each step keeps, and 1 "
                "would keep the first weights for ever. Use for example 0.999, or 0 for no mean."
            )
        _positive("peak_lr", self.peak_lr)
        _at_least("total_steps", self.total_steps, 1)
        _choice("schedule", self.schedule, ("cosine", "wsd", "constant"))
        for name in ("warmup_steps", "weight_decay", "clip_norm", "z_loss", "spike_factor"):
            _at_least(name, getattr(self, name), 0)
        _at_least("spike_window", self.spike_window, 2)
        for name in ("final_lr_fraction", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} is outside 0 to 1: it is a fraction. Use for example 0.1 for 10 %."
                )
        if self.warmup_steps >= self.total_steps and self.schedule != "constant":
            raise ValueError(
                f"warmup_steps={self.warmup_steps} leaves nothing of total_steps={self.total_steps}: "
                "the decay starts after the warm-up. Use fewer warm-up steps or a longer run."
            )


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices stand along each mesh axis; their product is the number of devices."""

    data: int = 1
    """Copies of the weights; each takes its part of the batch."""
    fsdp: int = 1
    """Parts of each weight and of the optimizer state (ZeRO-3); the batch is split along it too."""
    tensor: int = 1
    """Parts of heads, mlp and vocabulary within a layer."""
    context: int = 1
    """Parts of the length; keys and values are gathered, so that each query sees its whole row."""
    expert: int = 1
    """Parts of the experts of a mixture; the batch is split along it too."""
    stage: int = 1
    """Parts of the depth; rows follow one another through them, `microbatches` at a time."""

    def __post_init__(self) -> None:
        for name in MESH_AXES:
            _at_least(name, getattr(self, name), 1)

    @property
    def num_devices(self) -> int:
        return math.prod(getattr(self, axis) for axis in MESH_AXES)


def _at_least(name: str, value: float, minimum: int) -> None:
    if value < minimum:
        raise ValueError(
            f"{name}={value} is below {minimum}: a smaller value has no meaning here. Set {name} to {minimum} or more."
        )


def _positive(name: str, value: float) -> None:
    if not value > 0:
        raise ValueError(
            f"{name}={value} is not above 0: the model divides by it or scales with it. Use a positive number."
        )


def _choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(
            f"{name}={value!r} is not known: only {', '.join(choices)} are implemented. Choose one of them."
        )
