"""FLOPs, cycles and bytes of compiled programs against counts by hand, XLA's own analysis, and brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tasks.preflight.costs import hbm_bytes, totals
from tasks.preflight.hlo import Module, group_size, parse
from tests.tasks.preflight import programs


def on_cpu(function, *shapes: tuple[int, ...]) -> tuple[Module, float]:
    """The program on this machine's CPU, and the FLOPs that XLA itself counts."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*arrays).compile()
    analysis = compiled.cost_analysis()
    return parse(compiled.as_text()), float(analysis["flops"])


def test_flops_of_a_plain_matmul_are_those_that_xla_counts():
    module, flops = on_cpu(lambda a, b: a @ b, (96, 160), (160, 224))
    assert totals(module).matmul_flops == 2 * 96 * 160 * 224 == flops


def test_flops_of_a_batched_matmul_are_those_that_xla_counts():
    module, flops = on_cpu(lambda a, b: jnp.einsum("bmk,bkn->bmn", a, b), (3, 32, 64), (3, 64, 48))
    assert totals(module).matmul_flops == 2 * 3 * 32 * 64 * 48 == flops


@pytest.mark.parametrize("trips", [2, 5])
def test_a_scan_counts_its_body_as_often_as_it_runs_where_xla_counts_it_once(trips):
    def scanned(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    module, flops = on_cpu(scanned, (64, 128), (trips, 128, 128))
    body = 2 * 64 * 128 * 128
    assert totals(module).matmul_flops == trips * body
    assert flops < 1.2 * body, "XLA counts loops in full by now: compare with it instead"


def test_a_scan_in_a_scan_multiplies():
    def nested(x, weights):
        def outer(x, _):
            return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0], None

        return jax.lax.scan(outer, x, None, length=3)[0]

    module, _ = on_cpu(nested, (64, 128), (4, 128, 128))
    assert totals(module).matmul_flops == 12 * 2 * 64 * 128 * 128


@pytest.mark.parametrize(
    ("size", "kernel", "out", "stride", "low", "high", "lhs_dilate", "rhs_dilate"),
    [
        pytest.param(6, 6, 6, 5, 0, 0, 6, 1, id="a batched matmul: one real product for each place"),
        pytest.param(4, 4, 4, 1, 3, 3, 1, 1, id="all sums of two places"),
        pytest.param(8, 3, 6, 1, 0, 0, 1, 1, id="plain"),
        pytest.param(7, 3, 4, 2, 1, 1, 1, 1, id="stride and padding"),
        pytest.param(5, 2, 4, 2, 0, 0, 2, 2, id="dilated on both sides"),
        pytest.param(9, 1, 9, 1, 0, 0, 1, 1, id="a kernel of one place"),
    ],
)
def test_places_of_a_convolution_are_those_of_a_numpy_loop(
    size, kernel, out, stride, low, high, lhs_dilate, rhs_dilate
):
    left = np.zeros((size - 1) * lhs_dilate + 1)
    left[::lhs_dilate] = 1
    left = np.concatenate([np.zeros(low), left, np.zeros(high + kernel * rhs_dilate)])
    real = sum(left[o * stride + k * rhs_dilate] for o, k in itertools.product(range(out), range(kernel)))
    window = f"size={kernel} stride={stride} pad={low}_{high} lhs_dilate={lhs_dilate} rhs_dilate={rhs_dilate}"
    text = programs.module(
        f"  %a = bf16[{size},16,32]{{2,1,0}} parameter(1)",
        f"  %b = bf16[{kernel},32,64]{{2,1,0}} parameter(2)",
        f"  %c = bf16[{out},16,64]{{2,1,0}} convolution(%a, %b), window={{{window}}}, dim_labels=0bf_0io->0bf",
    )
    assert totals(parse(text)).matmul_flops == 2 * 16 * 32 * 64 * real


def test_a_batched_matmul_compiled_for_tpu_has_the_flops_of_its_products():
    assert totals(parse(programs.compiled("batched_matmul"))).matmul_flops == 2 * 6 * 128 * 256 * 384


@pytest.mark.parametrize("name", ["scan_blocking", "scan_sparsecore"])
def test_a_sharded_scan_compiled_for_tpu_has_its_flops_and_collectives(name):
    """Of make_programs.sharded_scan: 3 layers of [512, 1024] x [1024, 1024], then [1024, 512] x [512, 1024]."""
    module = parse(programs.compiled(name))
    assert totals(module).matmul_flops == 3 * 2 * 512 * 1024 * 1024 + 2 * 1024 * 512 * 1024
    found = [
        (collective[0].kind, times, collective[0].bytes, group_size(collective[0], 4))
        for here, times in module.runs()
        for op in here.ops
        if (collective := module.collective(op))
    ]
    gathers = [row for row in found if row[0] == "all-gather"]
    assert sum(times * size for _, times, size, _ in gathers) == 3 * 1024 * 1024 * 2
    assert all(group == 4 for *_, group in found)
    assert {kind for kind, *_ in found} == {"all-gather", "reduce-scatter"}


def test_only_the_sparsecore_flags_make_collectives_asynchronous():
    def kinds(name: str) -> set[str]:
        module = parse(programs.compiled(name))
        return {op.kind for here, _ in module.runs() for op in here.ops if module.collective(op)}

    assert kinds("scan_sparsecore") == {"call-start"}
    assert kinds("scan_blocking") == {"all-gather", "reduce-scatter"}


def one(text: str, name: str) -> float:
    module = parse(text)
    entry = module.computations[module.entry]
    return hbm_bytes(module, entry, entry.by_name[name])


SLICED = """%sliced (p: f32[10,8,128], i: s32[]) -> f32[1,8,128] {
  %p.0 = f32[10,8,128]{2,1,0} parameter(0)
  %p.1 = s32[] parameter(1)
  ROOT %ds = f32[1,8,128]{2,1,0} dynamic-slice(%p.0, %p.1, %p.1, %p.1), dynamic_slice_sizes={1,8,128}
}"""
UPDATED = """%updated (p: f32[10,8,128], u: f32[1,8,128], i: s32[]) -> f32[10,8,128] {
  %p.2 = f32[10,8,128]{2,1,0} parameter(0)
  %p.3 = f32[1,8,128]{2,1,0} parameter(1)
  %p.4 = s32[] parameter(2)
  ROOT %dus = f32[10,8,128]{2,1,0} dynamic-update-slice(%p.2, %p.3, %p.4, %p.4, %p.4)
}"""
BIG, PART, INDEX = 10 * 8 * 128 * 4, 8 * 128 * 4, 4


@pytest.mark.parametrize(
    ("op", "expected"),
    [
        pytest.param("f32[8,128]{1,0} add(%y, %y)", 2 * PART, id="an operand that comes twice is read once"),
        pytest.param("f32[8,128]{1,0:S(1)} add(%y, %y)", PART, id="a result in VMEM is not written"),
        pytest.param("f32[8,128]{1,0} add(%v, %v)", PART, id="an operand in VMEM is not read"),
        pytest.param(
            "f32[1,8,128]{2,1,0} fusion(%big, %i), kind=kLoop, calls=%sliced", 2 * PART + INDEX, id="a slice, not all"
        ),
        pytest.param(
            "f32[10,8,128]{2,1,0} fusion(%big, %part, %i), kind=kLoop, calls=%updated",
            2 * PART + INDEX,
            id="an update in place",
        ),
        pytest.param(
            "(f32[10,8,128]{2,1,0:S(1)}, f32[10,8,128]{2,1,0}, u32[]) copy-start(%big)", BIG, id="a copy into VMEM"
        ),
        pytest.param("f32[8,128]{1,0} bitcast(%y)", 0, id="a new name"),
    ],
)
def test_bytes_through_hbm_are_what_is_read_and_written_there(op, expected):
    text = programs.module(
        "  %y = f32[8,128]{1,0} parameter(1)",
        "  %v = f32[8,128]{1,0:T(8,128)S(1)} parameter(2)",
        "  %big = f32[10,8,128]{2,1,0} parameter(3)",
        "  %part = f32[1,8,128]{2,1,0} parameter(4)",
        "  %i = s32[] parameter(5)",
        f"  ROOT %it = {op}",
        others=(SLICED, UPDATED),
    )
    assert one(text, "it") == expected


def test_cycles_skip_what_runs_beside_the_tensorcore_and_placeholders():
    work = programs.work("w", 2.0)
    text = programs.module(
        work,
        work.replace("%w =", "%none =").replace(str(round(2.0 * programs.CYCLES_PER_MS)), str(2**63 - 1)),
        work.replace("%w =", "%beside =").replace("fusion(", "copy-start("),
    )
    assert totals(parse(text)).cycles == round(2 * programs.CYCLES_PER_MS)


def test_instructions_that_xla_computes_again_are_counted():
    text = programs.module(programs.work("fusion.12.remat", 1.0), programs.work("fusion.13", 1.0))
    assert totals(parse(text)).remat_ops == 1
