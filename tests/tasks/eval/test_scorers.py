"""Scorers against SacreBLEU, textbook formulas and hand-made cases."""

import math
import statistics

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.eval.scorers import chrf, in_language, mean, stderr_of_mean, stderr_of_ratio

WORDS = st.text(alphabet="abcde あいうえお漢字。 \n", max_size=40)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_chrf_is_that_of_sacrebleu(answer, reference):
    if not reference.split():
        return  # SacreBLEU treats an empty reference as an absent one
    oracle = sacrebleu.sentence_chrf(answer, [reference]).score
    assert chrf(answer, reference) == pytest.approx(oracle, abs=1e-9)


def test_chrf_ends():
    assert chrf("日本の首都は東京です。", "日本の首都は東京です。") == pytest.approx(100)
    assert chrf("abc", "xyz") == 0
    assert chrf("", "xyz") == 0
    assert chrf("", "") == 0


@pytest.mark.parametrize(
    ("text", "language", "verdict"),
    [
        pytest.param("これは日本語です。", "ja", True, id="kana and kanji"),
        pytest.param("日本国憲法", "ja", False, id="kanji alone may be Chinese"),
        pytest.param("apt は package です", "ja", False, id="mostly Latin letters"),
        pytest.param("apt で入れます", "ja", True, id="one Latin word in a Japanese sentence"),
        pytest.param("This is English.", "en", True, id="English"),
        pytest.param("これは日本語です。", "en", False, id="Japanese is not English"),
        pytest.param("123 !?", "en", False, id="no letters, no language"),
        pytest.param("", "ja", False, id="nothing"),
        pytest.param("ab あい", "ja", False, id="exactly half is not most"),
        pytest.param("ab あいう", "ja", True, id="just above half"),
    ],
)
def test_language_is_told_by_script(text, language, verdict):
    assert in_language(text, language) is verdict


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30))
def test_standard_error_is_that_of_the_textbook(values):
    assert mean(values) == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert stderr_of_mean(values) == pytest.approx(statistics.stdev(values) / math.sqrt(len(values)), abs=1e-6)


def test_error_of_a_ratio_of_equal_documents_is_that_of_the_mean():
    values = [1.0, 2.0, 4.0, 8.0]
    assert stderr_of_ratio(values, [1.0] * 4) == pytest.approx(stderr_of_mean(values))
    assert stderr_of_ratio([1.0], [1.0]) is None
    assert stderr_of_mean([1.0]) is None
