"""Names of slices, and that what the table says of a chip agrees with itself."""

import pytest

from tasks.errors import ConfigError
from tasks.preflight.slices import CHIPS, Slice


@pytest.mark.parametrize(
    ("name", "chips", "devices", "topology"),
    [
        ("v6e:16x16", 256, 256, "v6e:16x16"),
        ("v6e-256", 256, 256, "v6e:16x16"),
        ("v6e-64", 64, 64, "v6e:8x8"),
        ("v6e-32", 32, 32, "v6e:4x8"),
        ("v6e:1x1", 1, 1, "v6e:1x1"),
        ("v5p:4x4x8", 128, 128, "v5p:4x4x8"),
        pytest.param("v7x:2x2x4", 16, 32, "tpu7x:2x2x4", id="a v7x chip is two devices, and libtpu calls it tpu7x"),
    ],
)
def test_a_name_is_chips_devices_and_a_topology(name, chips, devices, topology):
    found = Slice.parse(name)
    assert (found.chips, found.devices, found.topology) == (chips, devices, topology)
    assert Slice.parse(str(found)) == found


@pytest.mark.parametrize("name", ["v6e", "v6e:0x4", "v9:2x2", "v5p:4x4", "v5p-128", "v6e:axb", "", "256"])
def test_what_is_no_slice_is_refused_with_an_example(name):
    with pytest.raises(ConfigError, match="v6e:16x16"):
        Slice.parse(name)


@pytest.mark.parametrize("name", CHIPS)
def test_clocks_follow_from_peak_and_matrix_units_and_lie_where_clocks_lie(name):
    assert 1.4e9 < CHIPS[name].clock_hz < 2.3e9


def test_v6e_has_the_clock_that_its_published_peak_fits():
    assert CHIPS["v6e"].clock_hz == pytest.approx(1.75e9, rel=1e-3)
