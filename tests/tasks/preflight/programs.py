"""Small HLO texts in the compiler's own spelling, with costs that are known by hand."""

from pathlib import Path

CYCLES_PER_MS = 918e12 / 2**19 / 1e3  # of v6e
HERE = Path(__file__).parent


def compiled(name: str) -> str:
    """A text that `make_programs.py` wrote."""
    return (HERE / "programs" / f"{name}.txt").read_text()


def work(name: str, ms: float, operand: str = "x") -> str:
    """An instruction of so many milliseconds."""
    return (
        f"  %{name} = f32[8,128]{{1,0:T(8,128)}} fusion(%{operand}), kind=kLoop, calls=%add_one, "
        f'backend_config={{"window_config":{{"estimated_cycles":"{round(ms * CYCLES_PER_MS)}"}}}}'
    )


def start(name: str, megabytes: float, calls: str) -> str:
    """An all-gather on the SparseCore whose result has so many megabytes."""
    rows = round(megabytes * 1e6 / 4 / 128)
    shape = f"((f32[{rows // 4},128]{{1,0}}, token[]), f32[{rows},128]{{1,0}})"
    return f'  %{name} = {shape} call-start(%x), async_execution_thread="sparsecore", to_apply=%{calls}'


def done(name: str, of: str, megabytes: float) -> str:
    return f"  %{name} = f32[{round(megabytes * 1e6 / 4 / 128)},128]{{1,0}} call-done(%{of})"


def gather(name: str, megabytes: float) -> str:
    """The computation that an all-gather's start calls: 4 devices take part."""
    rows = round(megabytes * 1e6 / 4 / 128)
    return (
        f"%{name} (p: f32[{rows // 4},128]) -> f32[{rows},128] {{\n"
        f"  %p.{name} = f32[{rows // 4},128]{{1,0}} parameter(0)\n"
        f"  ROOT %all-gather.{name} = f32[{rows},128]{{1,0}} all-gather(%p.{name}), channel_id=1, "
        "replica_groups=mesh['axis_0'=1,'axis_1'=4] {'axis_1'}, dimensions={0}, use_global_device_ids=true\n}"
    )


ADD_ONE = """%add_one (p: f32[8,128]) -> f32[8,128] {
  %p.add = f32[8,128]{1,0} parameter(0)
  ROOT %sum = f32[8,128]{1,0} add(%p.add, %p.add)
}"""


def module(*ops: str, others: tuple[str, ...] = ()) -> str:
    """An entry computation of these instructions, after the computations that they call."""
    entry = "\n".join(["  %x = f32[8,128]{1,0:T(8,128)} parameter(0)", *ops])
    called = "\n\n".join((ADD_ONE, *others))
    return f"HloModule jit_step\n\n{called}\n\nENTRY %main (x: f32[8,128]) -> f32[8,128] {{\n{entry}\n}}\n"


def loop(trips: int, *body: str) -> tuple[str, str, str]:
    """A while instruction with its condition and its body."""
    inside = "\n".join(body)
    return (
        "  %loop = (s32[], f32[8,128]) while(%x), condition=%cond, body=%body",
        f"%cond (p: (s32[], f32[8,128])) -> pred[] {{\n  %bound = s32[]{{:T(128)}} constant({trips})\n"
        "  %p.cond = (s32[], f32[8,128]) parameter(0)\n  %i = s32[] get-tuple-element(%p.cond), index=0\n"
        "  ROOT %less = pred[] compare(%i, %bound), direction=LT\n}",
        f"%body (p: (s32[], f32[8,128])) -> (s32[], f32[8,128]) {{\n  %x = f32[8,128]{{1,0:T(8,128)}} parameter(0)\n"
        f"{inside}\n}}",
    )
