"""What a training step is worth in floating-point operations, and how much of a device that is."""

from collections.abc import Mapping

from model.config import DecoderConfig

# bfloat16 FLOP/s of a device, by the name that JAX gives its kind; tasks/preflight/slices.py names the sources.
PEAK_FLOPS: Mapping[str, float] = {
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU7x": 1153.5e12,
}


def model_flops(cfg: DecoderConfig) -> float:
    """Of one token, forward and backward: 6 for each number that it meets (arXiv 2001.08361; attention is left out)."""
    return 6.0 * cfg.num_active_params


def mfu(cfg: DecoderConfig, tokens_per_s: float, device_kind: str) -> float | None:
    """Part of a device's peak that its tokens a second are worth; None where the peak is not known, as of CPUs.

    The peak is that of bfloat16 whatever the run multiplies in, as is the custom.
    """
    peak = PEAK_FLOPS.get(device_kind)
    return None if peak is None else tokens_per_s * model_flops(cfg) / peak
