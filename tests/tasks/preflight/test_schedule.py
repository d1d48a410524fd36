"""The step-time model on schedules of a few instructions, whose stalls are known by hand.

On v6e a gather among 4 chips runs on one ring of 2 links, 180 GB/s: of 240 MB three quarters are sent, which is 1 ms.
"""

import pytest

from tasks.preflight.hlo import parse
from tasks.preflight.schedule import Assumptions, Timeline, timeline
from tasks.preflight.slices import Slice
from tests.tasks.preflight import programs

V6E = Slice.parse("v6e:16x16")
MB = 240.0


def line(text: str, latency_ms: float = 0.0, kernel_s: float = 0.0) -> Timeline:
    return timeline(parse(text), V6E, lambda op, here: kernel_s, Assumptions(collective_latency_s=latency_ms / 1e3))


def two_gathers(first_ms: float, between_ms: float, *, waits: tuple[str, str] = ("a", "b")) -> str:
    return programs.module(
        programs.start("a", MB, "gather_a"),
        programs.start("b", MB, "gather_b"),
        programs.work("w1", first_ms),
        programs.done("d1", waits[0], MB),
        programs.work("w2", between_ms),
        programs.done("d2", waits[1], MB),
        others=(programs.gather("gather_a", MB), programs.gather("gather_b", MB)),
    )


def one_gather(ms: float) -> str:
    return programs.module(
        programs.start("a", MB, "gather_a"),
        programs.work("w1", ms),
        programs.done("d1", "a", MB),
        others=(programs.gather("gather_a", MB),),
    )


@pytest.mark.parametrize(
    ("ms", "stall_ms"),
    [
        pytest.param(1.5, 0.0, id="hidden behind more compute"),
        pytest.param(1.0, 0.0, id="just hidden"),
        pytest.param(0.6, 0.4, id="the rest is waited for"),
        pytest.param(0.0, 1.0, id="nothing to hide behind"),
    ],
)
def test_a_gather_beside_compute_costs_what_the_compute_does_not_cover(ms, stall_ms):
    found = line(one_gather(ms))
    assert found.stall_s * 1e3 == pytest.approx(stall_ms, abs=1e-3)
    assert found.compute_s * 1e3 == pytest.approx(ms, abs=1e-6)
    assert found.seconds == pytest.approx(found.compute_s + found.stall_s)
    (wire,) = found.wires
    assert (wire.kind, wire.is_async, wire.runs) == ("all-gather", True, 1)
    assert wire.bytes == pytest.approx(180e6, rel=1e-3)
    assert wire.window_s * 1e3 == pytest.approx(ms, abs=1e-6)


def test_two_gathers_share_one_ring_so_the_second_waits_for_the_first():
    found = line(two_gathers(1.0, 0.2))
    assert found.stall_s * 1e3 == pytest.approx(0.8, abs=1e-3)


def test_a_stall_gives_the_next_gather_time():
    found = line(two_gathers(0.0, 0.9))
    assert found.stall_s * 1e3 == pytest.approx(1.0 + 0.1, abs=1e-3)


def test_whoever_is_waited_for_first_the_ring_keeps_the_order_of_the_starts():
    found = line(two_gathers(0.0, 0.0, waits=("b", "a")))
    assert found.stall_s * 1e3 == pytest.approx(2.0, abs=1e-3)


def test_a_collective_enters_the_queue_at_its_update_where_it_has_one():
    late = one_gather(0.0).replace(
        programs.done("d1", "a", MB),
        programs.work("w2", 5.0) + "\n  %u = f32[8]{0} call-update(%a)\n" + programs.done("d1", "u", MB),
    )
    assert line(late).stall_s * 1e3 == pytest.approx(1.0, abs=1e-3)


def test_latency_is_paid_by_each_and_can_be_hidden_too():
    assert line(one_gather(1.0), latency_ms=0.1).stall_s * 1e3 == pytest.approx(0.1, abs=1e-3)
    assert line(one_gather(1.2), latency_ms=0.1).stall_s == 0


def test_a_blocking_gather_uses_all_links_of_the_torus_and_hides_nothing():
    rows = round(MB * 1e6 / 4 / 128)
    blocking = programs.module(
        programs.work("w1", 3.0),
        f"  %g = f32[{rows},128]{{1,0}} all-gather(%x), replica_groups=[1,256]<=[256], dimensions={{0}}",
    )
    found = line(blocking)
    assert found.stall_s == pytest.approx(MB * 1e6 * 255 / 256 / 360e9, rel=1e-3)
    assert not found.wires[0].is_async


def test_a_loop_runs_its_body_as_often_as_its_bound_says_with_an_empty_queue_each_time():
    ops, cond, body = programs.loop(
        7, programs.start("a", MB, "gather_a"), programs.work("w1", 0.25), programs.done("d1", "a", MB)
    )
    found = line(programs.module(ops, others=(cond, body, programs.gather("gather_a", MB))))
    assert found.compute_s * 1e3 == pytest.approx(7 * 0.25, rel=1e-5)  # cycles are whole
    assert found.stall_s * 1e3 == pytest.approx(7 * 0.75, abs=1e-2)
    assert found.wires[0].runs == 7


def test_a_kernel_takes_the_time_that_is_given_for_it_and_hides_a_gather():
    kernel = '  %k = f32[8,128]{1,0} custom-call(%x), custom_call_target="tpu_custom_call", backend_config={}'
    found = line(one_gather(0.0).replace(programs.work("w1", 0.0), kernel), kernel_s=0.7e-3)
    assert found.kernel_s == 0.7e-3
    assert found.stall_s * 1e3 == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize(
    ("cycles_ms", "expected_ms"),
    [
        pytest.param(0.5, 2 * 8192**3 / 918e12 * 1e3, id="an estimate above peak is not believed"),
        pytest.param(2.0, 2.0, id="one below peak is"),
    ],
)
def test_no_matmul_is_faster_than_the_matrix_units(cycles_ms, expected_ms):
    text = programs.module(
        "  %a = bf16[8192,8192]{1,0} parameter(1)",
        '  %c = bf16[8192,8192]{1,0} convolution(%a, %a), dim_labels=bf_io->bf, backend_config={"estimated_cycles":"'
        f'{round(cycles_ms * programs.CYCLES_PER_MS)}"}}',
    )
    assert line(text).matmul_s * 1e3 == pytest.approx(expected_ms, rel=1e-5)


def test_a_collective_that_never_ends_is_not_taken_for_a_schedule():
    endless = programs.module(programs.start("a", MB, "gather_a"), others=(programs.gather("gather_a", MB),))
    with pytest.raises(AssertionError, match="never end"):
        line(endless)


def test_a_gather_that_v5e_moves_from_within_fusions_hides_behind_them():
    """Of make_programs.gather_in_fusions: 15/16 of 32 MiB at 180 GB/s beside 6.9e10 FLOPs at 197 TFLOP/s."""
    found = timeline(parse(programs.compiled("gather_in_fusions")), Slice.parse("v5e:4x4"), lambda op, here: 0.0)
    (wire,) = found.wires
    assert (wire.kind, wire.is_async, wire.runs) == ("all-gather", True, 1)
    assert wire.seconds == pytest.approx(2**25 * 15 / 16 / 180e9)
    assert wire.window_s > 6.9e10 / 197e12
    assert wire.exposed_s == 0
    assert found.matmul_s > 2 * 6.9e10 / 197e12
