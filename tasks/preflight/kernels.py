"""What Pallas kernels cost: XLA has no figure for them, so their FLOPs are counted by hand from the model's shape."""

from collections.abc import Iterable
from dataclasses import dataclass

from model.config import DecoderConfig
from tasks.preflight.hlo import Computation, Op

# Matrix products over the scores, forward being 2 (q k^T, p v). A fused backward computes the scores again and has
# 5 products (scores, dv, dp, dk, dq); in two kernels scores and dp are computed twice: 4 in dkv, 3 in dq.
FORWARD, BACKWARD_FUSED, BACKWARD_DKV, BACKWARD_DQ = 2, 5, 4, 3
FLOATS = ("bf16", "f32", "f16")


@dataclass(frozen=True)
class Attention:
    """What the kernels of a model's attention have in common; the rest is in the shapes of each call."""

    head_dim: int
    queries: int
    """Of a row, on one device."""
    density: float
    """Visible pairs (query, key) of a row over all of its pairs, mean over layers."""
    fused: bool
    """One kernel for the whole backward pass."""

    @classmethod
    def of(cls, cfg: DecoderConfig, seq_len: int, context: int, names: Iterable[str]) -> "Attention":
        """For a program with kernels of these names, rows cut in `context` parts."""
        scores = [visible_scores(seq_len, window) for window in cfg.layer_windows]
        fused = not any("dq" in name and "dkv" not in name for name in names)
        return cls(cfg.head_dim, seq_len // context, sum(scores) / len(scores) / seq_len**2, fused)

    def flops(self, op: Op, computation: Computation) -> float:
        """Of one call, which may be of a part of the heads or the keys.

        Every call counts the mean density: over all parts of all layers, the sum is right. A backward call for some
        keys leaves out queries that cannot see them (`model/splash.py`), which the mean density counts.

        Raises:
            ValueError: it is not a kernel that is known.
        """
        name = kernel_name(op)
        if "dkv" in name:
            products = BACKWARD_FUSED if self.fused else BACKWARD_DKV
        elif "dq" in name:
            products = BACKWARD_DQ
        elif "fwd" in name or "mha" in name or "attention" in name:
            products = FORWARD
        else:
            raise ValueError(
                f"kernel {name!r} ({op.source}) is not known: XLA prices no Pallas kernel, and a step time without it "
                "would be wrong. Add its FLOPs to tasks/preflight/kernels.py."
            )
        operands = [array for operand in op.operands for array in computation.by_name[operand].arrays]
        q, k = [a for a in operands if len(a.dims) >= 3 and a.dims[-1] == self.head_dim and a.dtype in FLOATS][:2]
        queries = q.elements // q.dims[-2] * (q.dims[-2] if products == FORWARD else self.queries)
        return products * 2.0 * queries * k.dims[-2] * self.density


def visible_scores(seq_len: int, window: int | None) -> float:
    """Pairs (query, key) that a causal row has, within a window."""
    if window is None or window >= seq_len:
        return seq_len * (seq_len + 1) / 2
    return window * (window + 1) / 2 + (seq_len - window) * window


def kernel_name(op: Op) -> str:
    """The name a kernel was given: its instruction has it, with a number; otherwise the path of names ends in it."""
    own = op.name.partition(".")[0]
    parts = [part for part in op.source.split("/") if part != "pallas_call"]
    return own if own != "custom-call" or not parts else parts[-1]
