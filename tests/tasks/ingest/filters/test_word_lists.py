"""Offensive words: what counts as a word, the share on both sides of its limit, labels, two equal ways to find them."""

import re
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.filters import verdicts
from tasks.ingest.filters.ng_words import NgWordRules
from tasks.ingest.filters.toxicity import ToxicityRules
from tasks.ingest.lists import FOLDER, available, words
from tasks.ingest.literals import Literals
from tasks.ingest.texts import Texts
from tasks.ingest.words import WordScan
from tests.tasks.ingest.filters.oracle_lists import covered

WORDS = ["馬鹿", "馬鹿野郎", "鹿野", "SM", "ab c", "糞", "é", "3p", "𠀋𠀋", "ﾊﾞ", "a", "0", "カス", "インポ", "クソ人"]
SCAN = WordScan.of([WORDS])


def reason(text: str, rules: NgWordRules) -> str | None:
    return verdicts.judge(Texts([text]), {"ng_words": rules}).reasons[0]


def reference(text: str) -> int:
    return covered(text, [WORDS])[0]


@pytest.mark.parametrize(
    ("text", "chars"),
    [
        pytest.param("馬鹿野郎の鹿野", 6, id="the longest word, then reading goes on"),
        pytest.param("SMとSMSとDSM", 2, id="ASCII words stand alone"),
        pytest.param("カスタムとインポート、アカス", 0, id="katakana words stand alone"),
        pytest.param("このカスと・カス・クソ人", 7, id="beside other letters and the middle dot they do"),
        pytest.param("sm Sm", 4, id="capitals do not count"),
        pytest.param("AB C", 4, id="a phrase"),
        pytest.param("糞糞", 2, id="words of one character"),
        pytest.param("É", 0, id="only ASCII capitals are folded"),
        pytest.param("", 0, id="nothing"),
        pytest.param("馬\n鹿", 0, id="not over a line"),
    ],
)
def test_what_counts_as_a_word(text, chars):
    assert SCAN.matched([text]).tolist() == [[chars]]
    assert reference(text) == chars


def test_words_do_not_run_from_one_text_into_the_next():
    assert SCAN.matched(["馬", "鹿", "S", "M"]).sum() == 0


def test_a_word_of_two_lists_counts_for_the_first():
    assert WordScan.of([["馬鹿"], ["馬鹿", "糞"]]).matched(["馬鹿糞", "糞"]).tolist() == [[2, 1], [0, 1]]


@settings(max_examples=80)
@given(
    texts=st.lists(
        st.lists(st.sampled_from([*WORDS, *"馬鹿aAbSM \n𠀋Zé3ーァ・ｶあ"]), max_size=10).map("".join), max_size=4
    )
)
def test_tables_and_automaton_find_what_the_definition_says(texts):
    expected = [reference(text) for text in texts]
    found = list(SCAN.by_tables(texts)) if texts else []
    assert [sum(len(word) for number, word in found if number == index) for index in range(len(texts))] == expected
    if find_spec("hyperscan") and texts:
        assert list(SCAN.by_automaton(texts)) == found


@settings(max_examples=30)
@given(texts=st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_unicode_is_searched_alike(texts):
    found = list(SCAN.by_tables(texts))
    assert sum(len(word) for _, word in found) == sum(map(reference, texts))
    if find_spec("hyperscan"):
        assert list(SCAN.by_automaton(texts)) == found


@pytest.mark.parametrize("ignore_case", [False, True])
def test_places_are_never_missed(ignore_case):
    strings = [chr(a) + chr(b) + "c" * n for a in range(97, 107) for b in range(0x3042, 0x304C) for n in range(4)]
    literals = Literals.of(strings, ignore_case=ignore_case)
    text = "".join(strings[::3]) + "\n"
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    begins = [place for place in range(len(text)) if any(text.startswith(string, place) for string in strings)]
    assert set(begins) <= set(literals.places(codes).tolist())
    assert all(literals.at(text, place) for place in begins)


@pytest.mark.parametrize(("letters", "verdict"), [(39, "ng_words"), (38, "ng_words"), (40, None)])
def test_a_twentieth_of_the_letters_is_too_much(tmp_path, letters, verdict):
    text = "糞裸" + "あ" * (letters - 1)  # 2 of 40 = 0.05 is dropped, 2 of 39 too, 2 of 41 is kept
    assert reason(text, NgWordRules(lists=("ldnoobw-ja", "inappropriate-ja-sexual"))) == verdict


def test_the_share_of_an_english_text_is_over_all_characters():
    rules = NgWordRules(lists=("ldnoobw-en",), of_japanese=False)
    assert reason("acrotomophilia " + "a " * 140, rules) is None  # 14 of 295
    assert reason("acrotomophilia " + "a " * 130, rules) == "ng_words"  # 14 of 275


def test_toxicity_is_a_label_and_not_a_verdict():
    rules = ToxicityRules(lists=("ldnoobw-ja", "inappropriate-ja-offensive"))
    found = verdicts.judge(Texts(["糞糞糞糞", "馬鹿野郎" + "あ" * 12, ""]), {"toxicity": rules})
    assert found.reasons == [None] * 3
    np.testing.assert_array_equal(found.columns["toxicity.ldnoobw-ja"], [1, 0, np.nan])
    np.testing.assert_array_equal(found.columns["toxicity.inappropriate-ja-offensive"], [0, 0.25, np.nan])


@pytest.mark.parametrize(("limit", "verdict"), [(0.25, None), (0.24, "toxic:inappropriate-ja-offensive")])
def test_a_limit_makes_a_label_a_verdict(limit, verdict):
    rules = ToxicityRules(lists=("inappropriate-ja-offensive",), max_fraction=limit)
    assert verdicts.judge(Texts(["馬鹿野郎" + "あ" * 12]), {"toxicity": rules}).reasons == [verdict]


class TestLists:
    def test_every_list_is_in_the_readme_with_its_licence(self):
        readme = (FOLDER / "README.md").read_text(encoding="utf-8")
        for name in available():
            assert f"`{name}.txt`" in readme
            assert len(words(name)) > 20

    def test_a_config_holds_the_digest_of_a_list(self):
        [reference] = NgWordRules(lists=("ldnoobw-ja",)).lists
        assert re.fullmatch(r"ldnoobw-ja#sha256=[0-9a-f]{12}", reference)
        assert NgWordRules(lists=(reference,)).lists == (reference,)
        with pytest.raises(ValueError, match="now has the digest"):
            NgWordRules(lists=("ldnoobw-ja#sha256=000000000000",))

    def test_a_list_of_ones_own_is_named_with_its_digest(self, tmp_path):
        import hashlib

        own = tmp_path / "own.txt"
        own.write_text("丸太\n\n  丸太\n三角\n", encoding="utf-8")
        digest = hashlib.sha256(own.read_bytes()).hexdigest()
        with pytest.raises(ValueError, match="has no digest"):
            NgWordRules(lists=(str(own),))
        assert words(f"{own}#sha256={digest[:16]}") == ("丸太", "三角")
        with pytest.raises(ValueError, match="the config says"):
            words(f"{own}#sha256=0000000000000000")

    def test_two_lists_with_one_name_cannot_be_two_columns(self):
        with pytest.raises(ValueError, match="have one name"):
            ToxicityRules(lists=("ldnoobw-ja", "a/ldnoobw-ja.txt#sha256=000000000000"))
