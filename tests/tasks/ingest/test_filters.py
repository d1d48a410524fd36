"""Every rule on both sides of its threshold, and batches of any texts against the slow oracle."""

import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.filters import FILTERS, verdicts
from tasks.ingest.filters.character_ngrams import DUPLICATED
from tasks.ingest.filters.word_ngrams import WordNgramRules
from tasks.ingest.texts import Texts
from tests.tasks.ingest.filters.oracle import ORACLE, reason_of

# Few different letters, so that lines, sentences and n-grams repeat; and any Unicode, lone surrogates too.
TEXTS = st.one_of(
    st.text(alphabet="abあいアイ漢字。、！?\n 　ー・…𠀋x", max_size=120),
    st.lists(
        st.sampled_from(["the", "To.", "a", "of...", "#", "…", "\n", "\n\n", "- b", "bb", "あ。"]), max_size=40
    ).map(" ".join),
    st.text(st.characters(), max_size=40),
)
LOOSE = {  # thresholds that short texts can be on either side of; nothing switched off
    "length": {"min_chars": 5, "max_chars": 90},
    "japanese": {"min_japanese_letters": 3},
    "words": {"min_words": 3, "max_words": 30, "min_stop_words": 1},
    "sentences": {"min_mean_chars": 2, "max_mean_chars": 9, "max_longest_chars": 12},
    "duplication": dict.fromkeys(
        ("max_lines", "max_line_chars", "max_sentences", "max_sentence_chars", "max_blocks", "max_block_chars"), 0.4
    ),
    "python_source": {"min_code_nodes": 1},
    "garbled": {"max_lost_fraction": 0.1, "max_mojibake_fraction": 0.1},
}
SENTENCE = "今日は天気が良いので散歩に行きました。"


def verdict(name: str, text: str, **thresholds) -> str | None:
    """The reason of one filter for one text, and that the oracle has the same."""
    rules = FILTERS[name].rules(**thresholds)
    [reason] = verdicts.judge(Texts([text]), {name: rules}).reasons
    assert reason == reason_of(name, text, rules)
    return reason


class TestLength:
    @pytest.mark.parametrize(("chars", "reason"), [(399, "too_short"), (400, None), (500, None), (501, "too_long")])
    def test_both_bounds(self, chars, reason):
        assert verdict("length", "あ" * chars, max_chars=500) == reason


class TestJapanese:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param("あ" * 399, "few_japanese_letters", id="399 letters"),
            pytest.param("あ" * 400, None, id="400 letters"),
            pytest.param("ー" * 400 + "あ" * 399, "few_japanese_letters", id="the long mark is no letter"),
            pytest.param("あ" * 80 + "漢" * 320, None, id="a fifth hiragana"),
            pytest.param("あ" * 79 + "漢" * 321, "low_hiragana", id="less than a fifth"),
            pytest.param("あ" * 200 + "ア" * 200, None, id="half katakana"),
            pytest.param("あ" * 199 + "ア" * 201, "high_katakana", id="more than half"),
            pytest.param("あ" * 400 + "x" * 400, None, id="half Japanese"),
            pytest.param("あ" * 400 + "x" * 401, "low_japanese", id="less than half"),
        ],
    )
    def test_both_sides_of_each_threshold(self, text, reason):
        assert verdict("japanese", text) == reason


class TestSentences:
    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param("", "no_sentence", id="nothing"),
            pytest.param("。。!?\n。", "no_sentence", id="terminators only"),
            pytest.param(("あ" * 18 + "。") * 10, "short_sentences", id="19 on average"),
            pytest.param(("あ" * 19 + "。") * 10, None, id="20 on average"),
            pytest.param(("あ" * 89 + "。") * 10, None, id="90 on average"),
            pytest.param(("あ" * 90 + "。") * 10, "long_sentences", id="91 on average"),
            pytest.param("あ" * 199 + "。" + ("あ" * 30 + "。") * 9, None, id="longest 200"),
            pytest.param("あ" * 200 + "。" + ("あ" * 30 + "。") * 9, "longest_sentence", id="longest 201"),
            pytest.param(("あ" * 30 + "…\n") * 2 + ("あ" * 30 + "。\n") * 8, None, id="2 of 10 trail off"),
            pytest.param(("あ" * 30 + "…\n") * 3 + ("あ" * 30 + "。\n") * 7, "ellipsis", id="3 of 10 trail off"),
        ],
    )
    def test_both_sides_of_each_threshold(self, text, reason):
        assert verdict("sentences", text) == reason

    def test_no_limit_of_the_longest_sentence_when_zero(self):
        text = "あ" * 200 + "。" + ("あ" * 30 + "。") * 9
        assert verdict("sentences", text, max_longest_chars=0) is None


class TestDuplication:
    OFF = dict.fromkeys(
        ("max_lines", "max_line_chars", "max_sentences", "max_sentence_chars", "max_blocks", "max_block_chars"), 1.0
    )

    @pytest.mark.parametrize(
        ("rule", "reason", "join"),
        [
            ("max_lines", "duplicate_lines", "\n"),
            ("max_sentences", "duplicate_sentences", ""),
            ("max_blocks", "duplicate_blocks", "\n\n"),
        ],
    )
    def test_shares_by_count(self, rule, reason, join):
        different = [f"文{i:02d}番。" for i in range(7)]
        for copies, expected in ((3, None), (4, reason)):
            text = join.join([*different, *[different[0]] * copies, "別の文。"][: 7 + copies])
            share = copies / (7 + copies)
            thresholds = self.OFF | {rule: 0.301}
            assert (verdict("duplication", text, **thresholds) == reason) == (share > 0.301)
            assert verdict("duplication", text, **thresholds) == (expected if share > 0.301 else None)

    def test_shares_by_characters(self):
        text = "\n".join(["x" * 30, "y" * 50, "x" * 30])  # 30 of 110 characters repeat
        assert verdict("duplication", text, **self.OFF | {"max_line_chars": 0.28}) is None
        assert verdict("duplication", text, **self.OFF | {"max_line_chars": 0.27}) == "duplicate_line_chars"

    def test_blank_lines_and_indentation_do_not_count(self):
        assert verdict("duplication", "a\n\n\n\n\n b\n\n", **self.OFF | {"max_lines": 0.0}) is None
        assert verdict("duplication", "a\n   a", **self.OFF | {"max_lines": 0.0}) == "duplicate_lines"

    def test_lines_that_only_look_alike_are_no_copies(self):
        lines = ["0123456789abcdef", "01x3456789abcdef", "01y3456789abcdef", "01x3456789abcdef"]  # same at five places
        rules = FILTERS["duplication"].rules(**self.OFF | {"max_lines": 0.3})
        found = verdicts.judge(Texts(["\n".join(lines), "\n".join(lines[:3] * 2), lines[0]]), {"duplication": rules})
        assert found.columns["duplication.lines"].tolist() == [0.25, 0.5, 0.0]

    def test_one_switches_a_rule_off(self):
        assert verdict("duplication", "a\n" * 50, **self.OFF) is None


class TestCharacterNgrams:
    def test_repetition_goes_and_prose_stays(self):
        assert verdict("character_ngrams", "ああ" * 300) == "top_2gram"
        assert verdict("character_ngrams", SENTENCE * 30) == "duplicated_5gram"
        varied = "".join(map("".join, itertools.islice(itertools.permutations("あいうえおかきく"), 0, 4000, 97)))
        assert verdict("character_ngrams", varied, **{f"max_duplicated_{n}": 1.0 for n in DUPLICATED}) is None

    def test_an_empty_text_has_no_ngrams(self):
        assert verdict("character_ngrams", "") is None


class TestWords:
    GOOD = "the quick brown fox and that lazy dog have been to town with friends " * 5

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param(GOOD, None, id="prose"),
            pytest.param("the cat and " * 16 + "dog", "few_words", id="49 words"),
            pytest.param("the cat and " * 16 + "dog and", None, id="50 words"),
            pytest.param("of to be " * 20, "short_words", id="mean word of two"),
            pytest.param("the incomprehensibilities and " * 20, None, id="mean just below ten"),
            pytest.param("the incomprehensibilities of " + "xxxxxxxxxxxx " * 60, "long_words", id="mean above ten"),
            pytest.param(GOOD + "# " * 7, None, id="7 symbols in 77 words"),
            pytest.param(GOOD + "# " * 9, "symbols", id="9 symbols in 79 words"),
            pytest.param(("- the cat and animal\n") * 18 + "with\nto", None, id="18 of 20 lines are bullets"),
            pytest.param(("- the cat and animal\n") * 20 + "with to", "bullet_lines", id="20 of 21 lines are bullets"),
            pytest.param("the cat and dog sat…\n" * 3 + "the cat and dog\n" * 10, None, id="3 of 13 trail off"),
            pytest.param("the cat and dog sat…\n" * 5 + "the cat and dog\n" * 8, "ellipsis_lines", id="5 of 13"),
            pytest.param("the cat and dog 1234 " * 12, None, id="four fifths have letters"),
            pytest.param("the cat and 1234 " * 15, "non_alphabetic", id="three quarters have letters"),
            pytest.param("the the cat dog sheep " * 12, "few_stop_words", id="one stop word"),
            pytest.param("The, cat (and) sheep " * 15, None, id="two stop words in punctuation and capitals"),
        ],
    )
    def test_both_sides_of_each_threshold(self, text, reason):
        assert verdict("words", text, max_words=1000) == reason

    def test_too_many_words(self):
        assert verdict("words", self.GOOD, max_words=70) is None
        assert verdict("words", self.GOOD, max_words=69) == "many_words"


class TestWordNgrams:
    def test_template_pages_go_and_prose_stays(self):
        words = [f"word{i}" for i in range(120)]
        assert verdict("word_ngrams", " ".join(words)) is None
        assert verdict("word_ngrams", " ".join(words[:40] * 3)) == "duplicated_5words"
        assert verdict("word_ngrams", "same same " * 60) == "top_2words"

    @pytest.mark.parametrize("n", DUPLICATED)
    def test_each_length_has_its_own_threshold(self, n):
        off = dict.fromkeys(WordNgramRules.model_fields, 1.0)
        words = [f"w{i:03d}" for i in range(100)]
        text = " ".join(words + words[:n])
        share = n / (100 + n)
        assert verdict("word_ngrams", text, **off | {f"max_duplicated_{n}": share + 1e-6}) is None
        assert verdict("word_ngrams", text, **off | {f"max_duplicated_{n}": share - 1e-6}) == f"duplicated_{n}words"

    @pytest.mark.parametrize("text", ["", "one", "one two"])
    def test_short_texts_are_left_alone(self, text):
        assert verdict("word_ngrams", text) is None


class TestPythonSource:
    CODE = "\n".join(f"def f{i}(x):\n    return x + {i}" for i in range(8)) + "\n"

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            pytest.param(CODE, None, id="code"),
            pytest.param(CODE + "def broken(:\n", "syntax_error", id="does not parse"),
            pytest.param(CODE + "x = '" + "a" * 994 + "'", None, id="line of 1,000"),
            pytest.param(CODE + "x = '" + "a" * 995 + "'", "long_line", id="line of 1,001"),
            pytest.param("x = 1\n" * 9, "few_statements", id="9 statements"),
            pytest.param("x = 1\n" * 10, None, id="10 statements"),
            pytest.param(CODE + "T = [\n" + "    1000,\n" * 100 + "]\n", "mostly_data", id="a table"),
            pytest.param(CODE + "T = [\n" + "    f(1000),\n" * 100 + "]\n", None, id="a list of calls is code"),
            pytest.param(CODE + "# これは日本語の説明です\n", None, id="Japanese comment"),
            pytest.param(CODE + "# Это русский комментарий\n", "comment_language", id="Russian comment"),
            pytest.param(
                CODE + "x = 'Это русская строка, не комментарий'\n", None, id="strings may be in any language"
            ),
            pytest.param("\x00" + CODE, "syntax_error", id="null byte"),
            pytest.param("(" * 5000, "long_line", id="nesting"),
            pytest.param("(\n" * 5000, "syntax_error", id="deep nesting"),
        ],
    )
    def test_both_sides_of_each_rule(self, text, reason):
        assert verdict("python_source", text) == reason

    def test_mean_line_length(self):
        lines = "".join(f"x{i} = '{'a' * 90}'\n" for i in range(20))
        mean = sum(map(len, lines.split("\n"))) / len(lines.split("\n"))
        assert verdict("python_source", lines, max_mean_line_chars=mean) is None
        assert verdict("python_source", lines, max_mean_line_chars=mean - 0.01) == "long_lines"


@pytest.mark.parametrize("name", FILTERS)
class TestEveryFilter:
    @given(strings=st.lists(TEXTS, max_size=6))
    @settings(max_examples=60, deadline=None)
    def test_a_batch_of_any_texts_has_the_numbers_and_reasons_of_the_oracle(self, name, strings):
        rules = FILTERS[name].rules(**LOOSE.get(name, {}))
        found = verdicts.judge(Texts(strings), {name: rules}, everything=True)
        expected = [ORACLE[name](text, rules) for text in strings]
        for column in verdicts.columns_of({name: rules}):
            numbers = np.array([numbers[column.removeprefix(f"{name}.")] for numbers, _ in expected], float)
            np.testing.assert_array_equal(found.columns[column], numbers, err_msg=column)
        assert found.reasons == [next((r for r, holds in reasons if holds), None) for _, reasons in expected]

    def test_its_columns_are_those_of_its_limits(self, name):
        rules = FILTERS[name].rules(**LOOSE.get(name, {}))
        columns = FILTERS[name].measure(Texts(["x = 1\n", "あ"]), rules)
        assert set(columns) == {limit.column for limit in FILTERS[name].limits(rules)}
        assert all(len(values) == 2 for values in columns.values())
        for limit in FILTERS[name].limits(rules):
            assert re.fullmatch(r"[a-z0-9_:-]+", limit.reason)

    def test_every_threshold_says_what_it_is_and_where_it_comes_from(self, name):
        for field in FILTERS[name].rules.model_fields.values():
            assert field.description
        assert FILTERS[name].measure.__doc__
