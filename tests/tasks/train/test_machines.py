"""What a preset's `needs` is to GKE."""

import pytest

from tasks.train.machines import TOPOLOGIES, Machine, machine


@pytest.mark.parametrize(
    ("needs", "expected"),
    [
        ("tpu v6e-256", Machine("tpu-v6e-slice", "16x16", 64, 4)),
        ("tpu v6e-16", Machine("tpu-v6e-slice", "4x4", 4, 4)),
        ("tpu v6e-8", Machine("tpu-v6e-slice", "2x4", 1, 8)),
        ("tpu v6e-1", Machine("tpu-v6e-slice", "1x1", 1, 1)),
        ("tpu v5e-64", Machine("tpu-v5-lite-podslice", "8x8", 16, 4)),
    ],
)
def test_a_slice_is_so_many_hosts(needs, expected):
    assert machine(needs, int(needs.rpartition("-")[2])) == expected


def test_every_slice_has_all_its_chips():
    for chips, topology in TOPOLOGIES.items():
        found = machine(f"tpu v6e-{chips}", chips)
        width, height = map(int, topology.split("x"))
        assert found.hosts * found.chips_per_host == chips == width * height
