"""The style of Python files: scores against one process for each file, and real clean and bad files apart."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from tasks.errors import HostFault
from tasks.ingest.filters.code_style import CodeStyleRules, _findings, _score, comment_share, measure
from tasks.ingest.filters.verdicts import judge
from tasks.ingest.texts import Texts
from tests.tasks.ingest.filters.oracle import code_style

CODE = Path(__file__).resolve().parents[5] / "shared" / "data" / "code"
TIDY = "".join(f"def f{i}(x):\n    return x + {i}\n\n\n" for i in range(2))  # four statements


def scores(*sources: str) -> list[float]:
    return measure(Texts(sources), CodeStyleRules())["score"].tolist()


def test_the_score_is_that_of_the_formula():
    finding = TIDY + "import os\n"  # never used, and not at the top: two findings
    error = TIDY + "print(nobody)\n"  # an undefined name: five
    comment = "# one comment\nx = 1\n"
    assert scores(TIDY, finding, error) == [10.0, 10 - 10 * 2 / 5, 10 - 10 * 5 / 5]
    assert scores(comment) == [10 * (1 - comment_share(comment))]
    assert 0 < comment_share(comment) < 0.5


@pytest.mark.parametrize(
    "source",
    [
        TIDY + "import os\n",
        "x = 1  # noqa: a comment hides nothing\nimport os  # noqa\n",
        "if True:\n  print( undefined )\n",
        "def broken(:\n",
        "",
        "# nothing but a comment\n",
        "x = '\ud800'\n",
    ],
)
def test_a_file_has_the_score_of_the_oracle_wherever_it_stands_in_the_batch(source):
    rules = CodeStyleRules()
    expected = code_style(source, rules)[0]["score"]
    np.testing.assert_array_equal(scores(source, TIDY, source), [expected, 10.0, expected])


def test_both_sides_of_the_threshold():
    lines = [f"x{i} = {i}" for i in range(9)]
    source = "\n".join([*lines, "import os"]) + "\n"  # two findings in ten statements: 8.0
    for limit, reason in ((8.0, None), (8.0001, "poor_style")):
        assert judge(Texts([source]), {"code_style": CodeStyleRules(min_score=limit)}).reasons == [reason]


def test_another_release_is_refused():
    with pytest.raises(HostFault, match=r"ruff 0\.\d+\.\d+ is here, ruff_version is 0.1: "):
        measure(Texts(["x = 1\n"]), CodeStyleRules(ruff_version="0.1"))


def test_a_file_on_which_ruff_fails_costs_only_itself(tmp_path):
    fails = tmp_path / "ruff"
    fails.write_text('#!/bin/sh\nfor last; do :; done\ngrep -q crash "$last"/*.py && exit 134\necho "[]"\n')
    fails.chmod(0o755)
    assert _findings(str(fails), ["a", "crash", "b", "c", "d"]) == [[], None, [], [], []]
    assert _score("crash", 1, None) == 0.0


def test_what_python_cannot_parse_is_not_shown_to_ruff():
    deep = "x = " + "+".join(["1"] * 50_000) + "\n"  # ruff 0.17 overflows its stack here
    np.testing.assert_array_equal(scores(deep, TIDY), [np.nan, 10.0])


@pytest.mark.skipif(not CODE.is_dir(), reason=f"{CODE} is not here")
def test_clean_projects_pass_and_files_written_to_be_bad_do_not():
    kept = {}
    for name in ("clean-networkx-algorithms", "bad-style-pycodestyle"):
        with tarfile.open(CODE / f"{name}.tar.gz") as archive:
            files = [archive.extractfile(member) for member in archive.getmembers() if member.name.endswith(".py")]
            sources = [file.read().decode("utf-8", "replace") for file in files[:40] if file]
        score = np.array(scores(*sources))
        kept[name] = float(np.mean(score[~np.isnan(score)] >= 7))
    assert kept["clean-networkx-algorithms"] > 0.9
    assert kept["bad-style-pycodestyle"] < 0.5
