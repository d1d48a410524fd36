"""A packed batch that every part of the model reads."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def packed() -> dict[str, np.ndarray]:
    """Two rows of 48 tokens: segments of uneven length, one row with padding, some targets without weight."""
    rng = np.random.default_rng(7)
    tokens = rng.integers(4, 160, (2, 49)).astype(np.int32)
    segments = np.array([[1] * 30 + [2] * 18, [1] * 5 + [2] * 27 + [3] * 10 + [0] * 6], np.int32)
    positions = np.concatenate([np.arange(n) for n in (30, 18, 5, 27, 10, 6)]).astype(np.int32).reshape(2, 48)
    weights = (rng.random((2, 48)) < 0.8) * (segments > 0) * rng.choice([1.0, 0.5], (2, 48))
    return {
        "tokens_BT": tokens[:, :-1],
        "targets_BT": tokens[:, 1:],
        "positions_BT": positions,
        "segments_BT": segments,
        "weights_BT": weights.astype(np.float32),
    }
