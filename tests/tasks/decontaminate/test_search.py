"""What is found: planted items at both sides of every threshold, and random texts against sets of n-grams."""

import random
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.decontaminate import index as indexing
from tasks.decontaminate import search as searching
from tasks.decontaminate.index import Item, Widths, build
from tasks.decontaminate.search import Counts, Found, Rules, common_phrases, search
from tasks.decontaminate.units import Kind
from tests.tasks.decontaminate import slow

WIDTHS: dict[Kind, Widths] = {"words": Widths(13, 8), "characters": Widths(25, 15)}
EXACT = Rules(min_share=0.0, min_similarity=0.0)
ALIKE = Rules(min_share=0.0, min_similarity=95.0)
EN = (
    "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning and bakes muffins for her "
    "friends every day with four."
)
JA = (
    "ジャネットのアヒルは1日に16個の卵を生みます。ジャネットは毎朝朝食の一環で3個を消費し、"
    "毎日4個使って友達向けにマフィンを焼きます。"
)


def found(items: list[Item], text: str, rules: Rules = EXACT) -> Found | None:
    (one,) = search(build(items, WIDTHS), rules, [text])
    return one


def rule(one: Found | None) -> str:
    return one.rule if one else ""


def words_of(text: str, count: int) -> str:
    return " ".join(slow.plain(text).split()[:count])


@pytest.mark.parametrize(("count", "is_found"), [(13, True), (12, False)])
def test_thirteen_words_in_a_row_are_enough_and_twelve_are_not(count, is_found):
    one = found([Item("gsm8k", "0", EN)], f"Before this. {words_of(EN, count)} after that.")
    assert (one is not None) == is_found
    if one:
        assert (one.item.id, one.rule, one.evidence) == ("0", "13 words", words_of(EN, 13))
        assert one.similarity == pytest.approx(1 / 13)  # 25 words have 13 windows


@pytest.mark.parametrize(("count", "is_found"), [(25, True), (24, False)])
def test_twenty_five_letters_in_a_row_are_enough_and_twenty_four_are_not(count, is_found):
    letters = slow.plain(JA).replace(" ", "")
    one = found([Item("mgsm", "0", JA)], f"前の文。{letters[:count]}＊後の文")
    assert (one is not None) == is_found
    if one:
        assert (one.rule, one.evidence) == ("25 characters", letters[:25])


@pytest.mark.parametrize(("words", "is_found"), [(8, True), (7, False)])
def test_a_short_item_is_looked_for_whole_from_eight_words_on(words, is_found):
    item = words_of(EN, words)
    assert (found([Item("nq", "0", item)], f"He said: {item.upper()}, twice.") is not None) == is_found
    assert found([Item("nq", "0", item + " indeed")], f"He said: {item.upper()}, twice.") is None


@pytest.mark.parametrize(("letters", "is_found"), [(15, True), (14, False)])
def test_a_short_japanese_item_is_looked_for_whole_from_fifteen_letters_on(letters, is_found):
    item = JA[:letters]
    one = found([Item("niilc", "0", item)], f"問題：{item}？")
    assert (one is not None) == is_found
    assert one is None or (one.rule, one.similarity) == ("whole item", 1.0)
    assert found([Item("niilc", "0", item + "牛")], f"問題：{item}？") is None


def test_width_case_punctuation_and_line_breaks_do_not_hide_an_item():
    shown = EN.upper().replace(" ", "\n").replace(".", " …!")
    assert found([Item("gsm8k", "0", EN)], shown) is not None
    assert found([Item("mgsm", "0", JA)], JA.replace("1", "１").replace("。", "\n\n").replace("ジ", "ｼﾞ")) is not None


def test_words_are_whole_words_and_windows_do_not_go_on_in_the_next_text():
    assert found([Item("gsm8k", "0", EN)], "x" + words_of(EN, 13) + "x") is None
    parts = slow.plain(EN).split()
    halves = [" ".join(parts[:9]), " ".join(parts[9:18])]
    assert search(build([Item("gsm8k", "0", EN)], WIDTHS), EXACT, halves) == [None, None]


def test_an_item_in_two_languages_is_found_by_either():
    item = Item("jhumaneval", "0", JA + "\n" + EN)
    assert rule(found([item], words_of(EN, 13))) == "13 words"
    assert rule(found([item], slow.plain(JA).replace(" ", "")[:25])) == "25 characters"


def test_twenty_five_latin_letters_of_a_japanese_item_are_no_evidence():
    item = Item("jhumaneval", "0", "関数を書け return the number of elements in the list")
    assert found([item], "We return the number of elements in the list.") is None


@pytest.mark.parametrize(("share", "is_found"), [(4 / 13, True), (4 / 13 + 1e-9, False)])
def test_a_row_must_hold_the_share_of_windows_that_is_asked_for(share, is_found):
    text = words_of(EN, 16)  # four windows of thirteen
    assert (found([Item("gsm8k", "0", EN)], text, Rules(share, 0.0)) is not None) == is_found


@pytest.mark.parametrize("side", [0, 1])
def test_a_passage_is_the_same_from_the_similarity_on_that_is_asked_for(side):
    item = words_of(EN, 25)
    parts = item.split()
    parts[10], parts[20] = "most", "bake"
    edited = " ".join(parts)  # no 13 words in a row are left, 10 in a row are
    exact = slow.ratio(item, edited)
    assert exact > 90
    limit = exact if side == 0 else exact + 1e-6
    one = found([Item("gsm8k", "0", item)], f"Question {edited} Answer", Rules(0.0, limit))
    assert (one is None) == bool(side)
    assert one is None or (one.similarity, one.evidence) == (pytest.approx(exact / 100), edited)
    assert found([Item("gsm8k", "0", item)], f"Question {edited} Answer", EXACT) is None


def test_an_edited_japanese_question_is_found_as_alike():
    item = Item("niilc", "0", "ワールドカップは何年に一度開催されるの？")
    assert rule(found([item], "問題：ワールドカップは何年に一度、開催されてるの？です", ALIKE)) == "95 % alike"
    assert found([item], "問題：オリンピックは何年に一度開催されるの？です", ALIKE) is None


def test_the_item_that_is_held_most_is_named_and_the_first_of_equals():
    items = [Item("b", "1", EN), Item("a", "2", EN), Item("a", "1", EN + " She sells the rest.")]
    one = found(items, EN)
    assert one is not None
    assert (one.item.benchmark, one.item.id, one.similarity) == ("a", "2", 1.0)


def test_equal_texts_of_one_benchmark_are_one_item():
    index = build([Item("squad", "2", EN), Item("squad", "1", EN), Item("other", "9", EN)], WIDTHS)
    assert [(item.benchmark, item.id) for item in index.items] == [("other", "9"), ("squad", "1")]


def test_a_collision_of_hashes_drops_nothing(monkeypatch):
    """With a hash that is always the same every window is a candidate; only equal text is found."""
    from tasks.decontaminate import units

    items, texts = [Item("gsm8k", "0", EN), Item("mgsm", "0", JA)], ["other words " * 20, "別の言葉" * 20, EN, JA]
    expected = search(build(items, WIDTHS), ALIKE, texts)
    monkeypatch.setattr(units, "_mixed", lambda values: np.zeros_like(values))
    assert search(build(items, WIDTHS), ALIKE, texts) == expected
    assert [one is None for one in expected] == [True, True, False, False]


@pytest.mark.parametrize(("most", "is_found"), [(3, True), (2, False)])
def test_a_window_that_too_many_texts_hold_is_not_looked_for(most, is_found):
    """Three texts hold it, one of them twice."""
    phrase = words_of(EN, 13)
    items = [Item("gsm8k", "0", EN), Item("nq", "0", words_of(EN, 9))]
    texts = [phrase, f"{phrase} and {phrase}", f"so {phrase}", "nothing"]
    index = build(items, WIDTHS)
    counts = Counts(index)
    counts.add(texts[:2])
    counts.add(texts[2:])
    less = index.without(common_phrases(index, counts, most))
    assert [one is not None for one in search(less, ALIKE, texts)] == [is_found] * 3 + [False]
    assert rule(search(less, ALIKE, [EN])[0]) == "13 words", "the other windows of the item still count"
    assert less.is_used.tolist() == [True, is_found]


ALPHABET = ["a", "b", "アヒ", "か", "。", " ", " ", "\n", "漢"]


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_random_texts_against_sets_of_ngrams(data):
    rng = random.Random(data.draw(st.integers(0, 2**32)))

    def text(size: int) -> str:
        return "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(size)))

    items = [Item(rng.choice("xy"), f"{i}", text(40)) for i in range(6)]
    texts = [text(60) for _ in range(8)] + [text(9) + rng.choice(items).text + text(9) for _ in range(3)]
    words, characters = rng.choice([2, 3, 5]), rng.choice([2, 4, 6])
    index = build(items, {"words": Widths(words, words), "characters": Widths(characters, characters)})
    kept = list(index.items)  # of equal texts one is left
    for one, t in zip(search(index, EXACT, texts), texts, strict=True):
        best = slow.most_held(kept, t, words, characters)
        if best is None:
            assert one is None
        else:
            assert one is not None
            assert (Fraction(one.similarity).limit_denominator(1000), one.item) == best


def test_a_text_that_repeats_a_word_for_ever_takes_neither_time_nor_memory():
    zeros = [Item("bbh", f"{i}", "0 " * (200 + i)) for i in range(20)]
    tracemalloc.start()
    one, other = search(build([*zeros, Item("gsm8k", "0", EN)], WIDTHS), ALIKE, ["0 " * 200_000, "1 " * 200_000 + EN])
    assert tracemalloc.get_traced_memory()[1] < 400e6
    tracemalloc.stop()
    assert (one.item.id if one else "", other.item.benchmark if other else "") == ("0", "gsm8k")


def test_no_batch_shows_in_the_result(monkeypatch):
    monkeypatch.setattr(searching, "BATCH_LETTERS", 2000)
    rng = random.Random(3)
    texts = [" ".join(rng.choice(slow.plain(EN).split()) for _ in range(rng.randrange(200))) for _ in range(60)]
    texts[7] += EN
    texts[40] = JA + texts[40]
    assert len(searching.batches(texts)) > 5
    index = build([Item("gsm8k", "0", EN), Item("mgsm", "0", JA)], WIDTHS)
    together = search(index, ALIKE, texts)
    monkeypatch.setattr(indexing, "BLOCK_PAIRS", 3)
    assert together == [search(index, ALIKE, [text])[0] for text in texts]
    assert [i for i, one in enumerate(together) if one] == [7, 40]


def test_nothing_at_all_is_no_fault():
    index = build([Item("gsm8k", "0", EN)], WIDTHS)
    assert search(index, ALIKE, []) == []
    assert search(index, ALIKE, ["", "\n", "。", "\ud800", "短"]) == [None] * 5
    assert search(build([Item("x", "0", "")], WIDTHS), ALIKE, [EN, JA]) == [None, None]
