"""Which keys a query may see in packed rows: one rule for every implementation of attention."""

import jax

NEGATIVE = -2.0e38  # like minus infinity in float32, but its exponential has no NaN when a whole row is masked


def packed_mask(
    segments_BT: jax.Array, segments_BS: jax.Array, places_T: jax.Array, places_S: jax.Array, window: int | None
) -> jax.Array:
    """True [B, T, S] where query t may see key s: same segment, not later, and fewer than `window` places back."""
    distance_TS = places_T[:, None] - places_S[None, :]
    near_TS = distance_TS >= 0
    if window is not None:
        near_TS &= distance_TS < window
    return near_TS & (segments_BT[:, :, None] == segments_BS[:, None, :])
