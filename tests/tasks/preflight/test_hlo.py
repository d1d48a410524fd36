"""Reading HLO text: kernels over several lines, groups of collectives in three spellings, loops without a bound."""

import pytest

from tasks.preflight.hlo import group_size, parse
from tests.tasks.preflight import programs

KERNEL = """  %k = (f32[8,128]{1,0}, f32[8,128]{1,0}) custom-call(%x), custom_call_target="tpu_custom_call", c={"a":"
module {
  func.func @main() {
  }
}
"}, metadata={op_name="jit(step)/splash_mha_fwd"}"""


def test_a_kernel_spreads_over_lines_and_the_next_instruction_is_found():
    module = parse(programs.module(KERNEL, programs.work("after", 1.0)))
    kernel, after = module.computations["main"].ops[1:]
    assert kernel.is_kernel
    assert kernel.source == "jit(step)/splash_mha_fwd"
    assert [array.dims for array in kernel.arrays] == [(8, 128), (8, 128)]
    assert after.name == "after"
    assert not after.is_kernel


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        pytest.param("replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_1'}", 8, id="one mesh axis"),
        pytest.param("replica_groups=mesh['axis_0'=2,'axis_1'=8] {'axis_0','axis_1'}", 16, id="two mesh axes"),
        pytest.param("replica_groups=mesh['axis_0'=16] {'axis_0':(2)4}", 4, id="a part of an axis"),
        pytest.param("replica_groups=[4,64]<=[256]", 64, id="iota"),
        pytest.param("replica_groups={{0,1,2},{3,4,5}}", 3, id="written out"),
        pytest.param("channel_id=1", 256, id="everybody"),
    ],
)
def test_the_size_of_a_group_is_read_in_every_spelling(groups, expected):
    text = programs.module(f"  %g = f32[8,128]{{1,0}} all-gather(%x), {groups}, dimensions={{0}}")
    assert group_size(parse(text).computations["main"].by_name["g"], 256) == expected


def test_memory_spaces_and_types_are_read_from_the_layout():
    text = programs.module(
        "  %t = (bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[5]{0}, pred[], s4[4]{0}) custom-call(%x)"
    )
    arrays = parse(text).computations["main"].by_name["t"].arrays
    assert [(a.dtype, a.dims, a.space, a.bytes) for a in arrays] == [
        ("bf16", (2, 3), 1, 12),
        ("f32", (5,), 0, 20),
        ("pred", (), 0, 1),
        ("s4", (4,), 0, 2),
    ]


def test_a_known_trip_count_is_believed_and_otherwise_the_bound_of_the_condition():
    op, cond, body = programs.loop(46)
    bound = parse(programs.module(op, others=(cond, body)))
    assert bound.trip_count(bound.computations["main"].by_name["loop"]) == 46
    told = parse(programs.module(op + ', backend_config={"known_trip_count":{"n":"23"}}', others=(cond, body)))
    assert told.trip_count(told.computations["main"].by_name["loop"]) == 23


def test_a_loop_without_one_bound_is_refused():
    op, cond, body = programs.loop(46)
    free = cond.replace("s32[]{:T(128)} constant(46)", "s32[] parameter(1)")
    module = parse(programs.module(op, others=(free, body)))
    with pytest.raises(ValueError, match=r"0 constant bounds.*splash"):
        module.trip_count(module.computations["main"].by_name["loop"])


def test_of_branches_the_costliest_counts():
    branches = (
        "%cheap (p: f32[8,128]) -> f32[8,128] {\n" + programs.work("c", 1.0, "p.c") + "\n}",
        "%dear (p: f32[8,128]) -> f32[8,128] {\n" + programs.work("d", 2.0, "p.d") + "\n}",
    )
    text = programs.module(
        "  %if = f32[8,128]{1,0} conditional(%x, %x, %x), branch_computations={%cheap, %dear}", others=branches
    )
    assert [here.name for here, _ in parse(text).runs()] == ["main", "dear"]


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        parse("Traceback: nothing")
