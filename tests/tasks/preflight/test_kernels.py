"""FLOPs of attention kernels against a count of visible pairs, and their names."""

import numpy as np
import pytest

from model.families import decoder_config
from tasks.preflight.hlo import Computation, Op
from tasks.preflight.kernels import Attention, kernel_name, visible_scores


@pytest.mark.parametrize(("seq_len", "window"), [(64, None), (64, 16), (64, 1), (64, 64), (64, 65), (7, 3)])
def test_visible_scores_are_the_ones_of_a_mask(seq_len, window):
    distance = np.arange(seq_len)[:, None] - np.arange(seq_len)[None]
    mask = (distance >= 0) & (distance < (window or seq_len))
    assert visible_scores(seq_len, window) == mask.sum()


def call(name: str, q: tuple[int, ...], k: tuple[int, ...]) -> tuple[Op, Computation]:
    """A call of a splash kernel as it stands in a program: block tables, then queries, keys and values."""

    def operand(name: str, shape: str) -> Op:
        return Op(name, "fusion", shape, (), "", False)

    queries, keys = (f"bf16[{','.join(map(str, dims))}]{{2,1,0}}" for dims in (q, k))
    attributes = f'custom_call_target="tpu_custom_call", metadata={{op_name="jit(step)/vmap({name})/{name}"}}'
    op = Op("custom-call.1", "custom-call", "f32[1]", ("table", "q", "k", "v"), attributes, False)
    operands = (operand("table", "s8[32,8,128]{2,1,0}"), operand("q", queries), operand("k", keys), operand("v", keys))
    return op, Computation("body", (*operands, op))


LARGE = decoder_config("gemma2/27b")


@pytest.mark.parametrize(
    ("name", "fused", "products"),
    [
        ("splash_mha_fwd_segmented_residuals", True, 2),
        ("splash_mha_dkv_segmented", True, 5),
        ("splash_mha_dkv_segmented", False, 4),
        ("splash_mha_dq_segmented", False, 3),
    ],
)
def test_a_kernel_has_the_products_of_its_pass(name, fused, products):
    """27B at 8,192 tokens: forward 5.5e11 FLOPs in a global layer and 4.1e11 in a local one (tpu-aot.md)."""
    names = {name} if fused else {"splash_mha_dkv_segmented", "splash_mha_dq_segmented"}
    found = Attention.of(LARGE, 8_192, 1, names).flops(*call(name, (32, 8_192, 128), (16, 8_192, 128)))
    assert found == pytest.approx(products / 2 * (5.5e11 + 4.1e11) / 2, rel=0.01)


def test_calls_for_parts_of_rows_heads_and_keys_add_up():
    attention = Attention.of(LARGE, 8_192, 1, {"splash_mha_dkv"})
    whole = attention.flops(*call("splash_mha_dkv", (2, 32, 8_192, 128), (2, 16, 8_192, 128)))
    part = attention.flops(*call("splash_mha_dkv", (8, 8_192, 128), (4, 2_048, 128)))
    assert 2 * 4 * 4 * part == pytest.approx(whole)  # rows x heads x keys


def test_queries_that_a_backward_call_leaves_out_are_in_the_mean_density():
    """The calls of model/splash.py for four blocks of keys: each leaves out the queries before its keys."""
    attention = Attention.of(LARGE, 8_192, 1, {"splash_mha_dkv"})
    whole = attention.flops(*call("splash_mha_dkv", (32, 8_192, 128), (16, 8_192, 128)))
    lengths = (8_192, 6_144, 4_096, 2_048)
    calls = [attention.flops(*call("splash_mha_dkv", (32, length, 128), (16, 2_048, 128))) for length in lengths]
    assert sum(calls) == pytest.approx(whole)


def test_a_device_that_holds_part_of_the_rows_counts_its_queries():
    whole = Attention.of(LARGE, 8_192, 1, {"dkv"}).flops(*call("dkv", (32, 8_192, 128), (16, 8_192, 128)))
    part = Attention.of(LARGE, 8_192, 4, {"dkv"}).flops(*call("dkv", (32, 2_048, 128), (16, 8_192, 128)))
    assert 4 * part == pytest.approx(whole)


def test_a_kernel_that_nobody_priced_stops_the_estimate():
    with pytest.raises(ValueError, match="'mystery'"):
        Attention.of(LARGE, 8_192, 1, {"mystery"}).flops(*call("mystery", (32, 8, 128), (16, 8, 128)))


@pytest.mark.parametrize(
    ("instruction", "path"),
    [
        ("splash_mha_dkv.17", "jit(step)/while/body/pallas_call"),
        ("custom-call.3", "jit(step)/vmap(x)/splash_mha_dkv/pallas_call"),
        ("splash_mha_dkv", ""),
    ],
)
def test_the_name_is_the_one_a_kernel_was_given(instruction, path):
    named = f'custom_call_target="tpu_custom_call", metadata={{op_name="{path}"}}'
    assert kernel_name(Op(instruction, "custom-call", "f32[1]", (), named, False)) == "splash_mha_dkv"
