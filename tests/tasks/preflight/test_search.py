"""The search against a machine whose memory and speed are known: the best is found, with few compiles."""

import pytest

from tasks.preflight.estimate import Estimate, StepTime
from tasks.preflight.search import search

POLICIES = ("full", "outputs", "none")
GIB = {"full": 2.0, "outputs": 6.0, "none": 20.0}  # for each row
SPEED = {"full": 1.0, "outputs": 1.3, "none": 1.5}


class Chip:
    """Fits what stays below its memory; more rows are a little slower for each token."""

    def __init__(self, memory: float):
        self.memory, self.tried = memory, []

    def __call__(self, rows: int, remat: str) -> Estimate:
        self.tried.append((rows, remat))
        fits = rows * GIB[remat] <= self.memory
        speed = SPEED[remat] / (1 + rows / 100)
        time = StepTime(
            matmul_s=1, other_s=0, kernels_s=0, stalls_s=0, step_s=1, mfu=speed, mfu_low=0, mfu_high=0,
            tokens_per_s_per_chip=speed, roofline_s=1, roofline_bound="compute",
        )  # fmt: skip
        return Estimate(
            remat=remat, rows_at_once=rows, accumulate=1, rows=rows, digest="", compile_s=0, fits=fits,
            refusal="" if fits else "too large", params=1, model_flops=1, attention_model_flops=0,
            time=time if fits else None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("memory", "best", "largest"),
    [
        pytest.param(32, (1, "none"), (8, "full"), id="everything is kept at one row"),
        pytest.param(12, (1, "outputs"), (4, "full"), id="what is kept decides"),
        pytest.param(2, (1, "full"), (1, "full"), id="just one"),
    ],
)
def test_the_best_and_the_largest_that_fit_are_found(memory, best, largest):
    chip = Chip(memory)
    found = search(chip, POLICIES, first=(), most_rows=8, compiles=50)
    assert found.best is not None
    assert found.largest is not None
    assert (found.best.rows_at_once, found.best.remat) == best
    assert (found.largest.rows_at_once, found.largest.remat) == largest
    assert found.complete
    assert len(chip.tried) == len(set(chip.tried))


def test_more_is_not_tried_where_less_does_not_fit():
    chip = Chip(5)
    search(chip, POLICIES, first=(), most_rows=8, compiles=50)
    assert chip.tried == [(1, "full"), (1, "outputs"), (2, "full"), (2, "outputs"), (4, "full")]


def test_nothing_fits():
    chip = Chip(1)
    found = search(chip, POLICIES, first=(), most_rows=8, compiles=50)
    assert (found.best, found.largest, chip.tried) == (None, None, [(1, "full")])


def test_what_was_tried_before_counts_and_is_not_tried_again():
    chip = Chip(32)
    own = chip(2, "full")
    chip.tried.clear()
    found = search(chip, POLICIES, first=(own,), most_rows=2, compiles=50)
    assert (2, "full") not in chip.tried
    assert own in found.trials


def test_a_budget_ends_the_search_and_it_says_so():
    chip = Chip(32)
    found = search(chip, POLICIES, first=(), most_rows=8, compiles=2)
    assert len(chip.tried) == 2
    assert not found.complete


def test_part_of_a_row_is_no_place_to_start_from():
    chip = Chip(32)
    half = Estimate(**{**vars(chip(1, "full")), "rows_at_once": 0.5})
    chip.tried.clear()
    search(chip, POLICIES, first=(half,), most_rows=1, compiles=50)
    assert (1, "full") in chip.tried
