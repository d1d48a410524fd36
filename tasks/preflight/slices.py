"""TPU slices: what a name like `v6e:16x16` is, and the published figures of its chips.

Sources: the system architecture pages of Cloud TPU (peak, HBM, bidirectional ICI bandwidth of a chip: v5e 400, v5p
1,200, v6e 800, v7x 1,200 GB/s), and libtpu 0.0.42.1 itself, asked on a machine without TPU: memory that a program may
use (from its out-of-memory message) and FLOPs per cycle (one matmul of 2^40 FLOPs is estimated at 70 to 90 % of it).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from model.flops import PEAK_FLOPS
from tasks.errors import ConfigError

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One generation. Figures are of a device, as JAX counts them: a v7x chip is two, any other chip one."""

    topology: str
    """Its name in libtpu's topologies."""
    device_kind: str
    devices: int = 1
    """Devices of a chip."""
    peak_flops: float
    """bfloat16 FLOP/s."""
    flops_per_cycle: int
    """Of the matrix units; the clock of XLA's cycle estimates is peak_flops over this."""
    hbm_bytes: float
    """What a program may use of the HBM."""
    hbm_bytes_per_s: float
    links: int
    """ICI links of a chip, two for each dimension of the torus."""
    link_bytes_per_s: float
    """Bytes per second of one link in one direction: 90 % of the published figure, which is what collectives reach."""
    usd_per_hour: float
    """Of a chip."""
    watts: float
    """Of a chip with its share of the host, at work."""

    @property
    def clock_hz(self) -> float:
        return self.peak_flops / self.flops_per_cycle


PRICE_SOURCE = "list prices on demand in US regions of 2025, not looked up since: check before you pay"
POWER_SOURCE = "assumed: no figure is published but v4's 170 W mean (arXiv 2304.01433); scaled by peak FLOP/s and node"

CHIPS: Mapping[str, Chip] = {
    "v5e": Chip(
        topology="v5e", device_kind="TPU v5 lite", peak_flops=PEAK_FLOPS["TPU v5 lite"], flops_per_cycle=2**17,
        hbm_bytes=15.75 * GIB, hbm_bytes_per_s=819e9, links=4, link_bytes_per_s=45e9, usd_per_hour=1.20, watts=220,
    ),
    "v5p": Chip(
        topology="v5p", device_kind="TPU v5", peak_flops=PEAK_FLOPS["TPU v5"], flops_per_cycle=2**18,
        hbm_bytes=95.74 * GIB, hbm_bytes_per_s=2765e9, links=6, link_bytes_per_s=90e9, usd_per_hour=4.20, watts=540,
    ),
    "v6e": Chip(
        topology="v6e", device_kind="TPU v6 lite", peak_flops=PEAK_FLOPS["TPU v6 lite"], flops_per_cycle=2**19,
        hbm_bytes=31.25 * GIB, hbm_bytes_per_s=1638e9, links=4, link_bytes_per_s=90e9, usd_per_hour=2.70, watts=400,
    ),
    "v7x": Chip(
        topology="tpu7x", device_kind="TPU7x", devices=2, peak_flops=PEAK_FLOPS["TPU7x"], flops_per_cycle=2**19,
        hbm_bytes=94.75 * GIB, hbm_bytes_per_s=3690e9, links=6, link_bytes_per_s=90e9, usd_per_hour=12.00, watts=1000,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """Chips that share one ICI network."""

    generation: str
    shape: tuple[int, ...]

    @classmethod
    def parse(cls, name: str) -> "Slice":
        """`v6e:16x16`, or `v6e-256` for a square (v5e, v6e) of so many chips.

        Raises:
            ConfigError: not the name of a slice.
        """
        generation, _, shape = name.replace("-", ":", 1).partition(":")
        sizes = shape.split("x")
        if generation not in CHIPS or not all(part.isdigit() and int(part) > 0 for part in sizes):
            raise _unknown(name)
        numbers = tuple(map(int, sizes))
        dimensions = CHIPS[generation].links // 2
        if len(numbers) == 1 and dimensions == 2:
            side = math.isqrt(numbers[0])
            while numbers[0] % side:
                side -= 1
            numbers = (side, numbers[0] // side)
        if len(numbers) != dimensions:
            raise _unknown(name)
        return cls(generation, numbers)

    @property
    def chip(self) -> Chip:
        return CHIPS[self.generation]

    @property
    def chips(self) -> int:
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        return self.chips * self.chip.devices

    @property
    def topology(self) -> str:
        """The name that libtpu knows."""
        return f"{self.chip.topology}:{'x'.join(map(str, self.shape))}"

    def __str__(self) -> str:
        return f"{self.generation}:{'x'.join(map(str, self.shape))}"


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"slice={name!r} is not a slice: it is a generation ({', '.join(CHIPS)}), a colon, and chips along each "
        "dimension of the torus, two for v5e and v6e and three for v5p and v7x, because the compiler routes "
        "collectives along them. Write for example v6e:16x16 or v5p:4x4x8."
    )
