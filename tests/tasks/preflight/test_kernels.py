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
    found = Attention.of(LARGE, 8_192, names).flops(*call(name, (32, 8_192, 128), (16, 8_192, 128)))
    assert found == pytest.approx(products / 2 * (5.5e11 + 4.1e11) / 2, rel=0.01)


def test_calls_for_parts_of_rows_heads_and_keys_add_up():
    attention = Attention.of(LARGE, 8_192, {"splash_mha_dkv"})
    whole = attention.flops(*call("splash_mha_dkv", (2, 32, 8_192, 128), (2, 16, 8_192, 128)))
    part = attention.flops(*call("splash_mha_dkv", (8, 4_096, 128), (4, 2_048, 128)))
    assert 2 * 4 * 2 * 4 * part == pytest.approx(whole)  # rows x heads x queries x keys


def test_a_kernel_that_nobody_priced_stops_the_estimate():
    with pytest.raises(ValueError, match="'mystery'"):
        Attention.of(LARGE, 8_192, {"mystery"}).flops(*call("mystery", (32, 8, 128), (16, 8, 128)))


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
