"""Compiler flags by generation: none where the compiler knows best, and none that the compiler does not know."""

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from model.compiler import COMPILER_OPTIONS, compiler_options


class Device:
    def __init__(self, device_kind: str):
        self.device_kind = device_kind


class Chips:
    """As much of a mesh as is asked for."""

    def __init__(self, device_kind: str):
        self.devices = np.array([Device(device_kind)])


def test_programs_of_a_cpu_and_of_one_device_have_no_flags():
    assert compiler_options(None) is None
    assert compiler_options(Mesh(np.array(jax.devices("cpu")[:1]), ("fsdp",))) is None


def test_a_kind_that_is_not_in_the_table_has_no_flags():
    assert compiler_options(Chips("TPU v9")) is None  # pyright: ignore[reportArgumentType]


def test_v6e_moves_all_three_collectives_to_the_sparsecore():
    options = compiler_options(Chips("TPU v6 lite"))  # pyright: ignore[reportArgumentType]
    assert options is not None
    for kind in ("all_gather", "all_reduce", "reduce_scatter"):
        assert options[f"xla_tpu_enable_sparse_core_collective_offload_{kind}"] == "true"
        assert options[f"xla_tpu_enable_async_collective_fusion_fuse_{kind}"] == "false"


@pytest.mark.parametrize("kind", COMPILER_OPTIONS)
def test_flags_are_texts_as_the_compiler_takes_them(kind):
    assert all(isinstance(value, str) and key.startswith("xla_") for key, value in COMPILER_OPTIONS[kind].items())
