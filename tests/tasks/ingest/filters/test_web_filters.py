"""FineWeb's, C4's and the mathematics rules on both sides of each threshold."""

import pytest

from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.presets import RULES, rebased
from tasks.ingest.filters.verdicts import columns_of, judge
from tasks.ingest.texts import Texts
from tests.tasks.ingest.filters.oracle import reason_of

PROSE = "A sentence of prose that is number {} and longer than thirty characters."
LINE = "a line of words without an end number {}"


def verdict(name: str, text: str, **thresholds) -> str | None:
    """The reason of one filter for one text, and that the oracle has the same."""
    rules = FILTERS[name].rules(**thresholds)
    [reason] = judge(Texts([text]), {name: rules}).reasons
    assert reason == reason_of(name, text, rules)
    return reason


def page(prose: int, lines: int = 0, short: int = 0) -> str:
    made = [PROSE.format(i) for i in range(prose)] + [LINE.format(i) for i in range(lines)]
    return "\n".join(made + [f"Menu {i}." for i in range(short)])


def repeated(others: int) -> str:
    """Lines of 100 characters: one of them twice."""
    return "\n".join([f"{'x' * 93} a b c."] * 2 + [f"{i:0>93} a b c." for i in range(others)])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(page(4, 21), None, id="4 of 25 lines end in punctuation"),
        pytest.param(page(3, 22), "few_punctuated_lines", id="3 of 25 are 0.12, which FineWeb drops"),
        pytest.param(page(34, 0, 66), None, id="66 of 100 are short"),
        pytest.param(page(33, 0, 67), "short_lines", id="67 of 100 are 0.67, which FineWeb drops"),
        pytest.param("x" * 30 + ".\n" + page(1), None, id="31 characters are not short"),
        pytest.param("x" * 29 + ".", "short_lines", id="30 characters are short"),
        pytest.param(repeated(99), None, id="100 of 10,100 characters are repeated"),
        pytest.param(repeated(98), "repeated_lines", id="100 of 10,000 are 0.01, which FineWeb drops"),
        pytest.param(
            "\n".join(f"{'x' * 30} {i}" + " b" * (i < 2) + "." for i in range(4)), None, id="3 breaks, 10 words"
        ),
        pytest.param("\n".join(f"{'x' * 30} {i}" + " b" * (i < 1) + "." for i in range(4)), "list", id="3 to 9"),
        pytest.param("", None, id="nothing has no lines"),
    ],
)
def test_lines(text, reason):
    assert verdict("lines", text) == reason


def test_rules_of_lines_are_switched_off_by_one():
    off = {"max_short": 1.0, "max_repeated_chars": 1.0, "max_breaks_per_word": 2.0}
    assert verdict("lines", "a.\n" * 50, max_breaks_per_word=2.0) == "short_lines"
    [reason] = judge(Texts(["a.\n" * 50]), {"lines": FILTERS["lines"].rules(**off)}).reasons
    assert reason is None
    assert columns_of({"lines": FILTERS["lines"].rules(**off)}) == ["lines.punctuated", "lines.breaks_per_word"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(page(5), None, id="five sentences"),
        pytest.param(page(4), "few_sentences", id="four sentences"),
        pytest.param("One two three. Is it? It is! And so on. The end", None, id="five in one line"),
        pytest.param("One two three.Is it? It is! And so on. The end", "few_sentences", id="no space, no end"),
        pytest.param(page(4) + "\ntwo words.", "few_sentences", id="a line of two words does not count"),
        pytest.param(page(4) + "\nThese are three.", None, id="a line of three words counts"),
        pytest.param(page(4) + "\nPlease enable JavaScript now.", "few_sentences", id="JavaScript"),
        pytest.param(page(4) + "\nThis site Uses Cookies daily.", "few_sentences", id="cookies"),
        pytest.param(page(4) + "\nA word " + "x" * 1000, None, id="a word of 1,000"),
        pytest.param(page(4) + "\nA word " + "x" * 1001, "few_sentences", id="a word of 1,001"),
        pytest.param(page(5) + "\nif (x) {", "curly_brackets", id="a curly bracket"),
        pytest.param(page(5) + "\nLorem Ipsum dolor", "lorem_ipsum", id="placeholder"),
    ],
)
def test_c4(text, reason):
    assert verdict("c4", text) == reason


def test_a_phrase_is_not_found_across_two_texts():
    found = judge(Texts(["lorem ", "ipsum", "LOREM IPSUM"]), {"c4": FILTERS["c4"].rules()})
    assert found.columns["c4.lorem_ipsum"].tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param(r"We have \frac{1}{2} = \sum x_i \leq \alpha." + "x" * 100, None, id="four commands and a sign"),
        pytest.param(r"We have \frac{1}{2} + \sum x_i \leq \alpha." + "x" * 100, "few_formulas", id="four commands"),
        pytest.param("∑∫≤≥×" + "あ" * 245, None, id="5 of 250"),
        pytest.param("∑∫≤≥×" + "あ" * 246, "little_mathematics", id="5 of 251"),
        pytest.param("=====" + "12345" * 6 + "x" * 65, None, id="30 of 100 are digits"),
        pytest.param("=====" + "12345" * 6 + "x" * 64, "table_of_numbers", id="30 of 99 are digits"),
        pytest.param(r"C:\1\2\3\4\5\6" * 9, "few_formulas", id="a backslash alone is no command"),
    ],
)
def test_formulas(text, reason):
    assert verdict("formulas", text) == reason


def test_a_command_is_not_made_of_two_texts():
    found = judge(Texts(["x\\", "frac"]), {"formulas": FILTERS["formulas"].rules()})
    assert found.columns["formulas.marks"].tolist() == [0, 0]


def test_named_sets_hold_what_was_published():
    assert set(RULES) == {"swallow-v1", "swallow-v2", "gopher-en", "fineweb-en", "code", "math"}
    for rules in RULES.values():
        assert all(isinstance(thresholds, FILTERS[name].rules) for name, thresholds in rules.items())
    v1, v2 = columns_of(RULES["swallow-v1"]), columns_of(RULES["swallow-v2"])
    gone = [column for column in v1 if column not in v2]
    assert gone[0] == "sentences.longest_chars"
    assert all(column.startswith("character_ngrams.") for column in gone[1:])
    assert len(gone) == 10


def test_changes_move_from_one_set_to_another_and_nothing_else_does():
    before, after = RULES["gopher-en"], RULES["fineweb-en"]
    made = rebased({name: rules.model_dump() for name, rules in before.items()}, before, after)
    assert made == {name: rules.model_dump() for name, rules in after.items()}
    changed = {name: rules.model_dump() for name, rules in before.items() if name != "word_ngrams"}
    changed["words"] |= {"min_words": 7}
    made = rebased(changed | {"japanese": {"min_japanese_letters": 3}, "word_ngrams": None}, before, after)
    assert list(made) == ["length", "words", "duplication", "lines", "c4", "japanese"]
    assert made["words"] == after["words"].model_dump() | {"min_words": 7}
    assert made["japanese"] == {"min_japanese_letters": 3}
