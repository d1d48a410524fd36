"""Repair: what was read in a wrong encoding is undone exactly or not at all; good text is never touched."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.characters import flag_table, flagged
from tasks.ingest.edits.repair import RepairRules, edit, undo_mojibake

CORPORA = Path(__file__).parents[5] / "shared" / "data"
SENTENCE = "この手引きでは、Debian 12 の導入方法と設定について説明します。"
SHORT = {  # every byte of these is a character of Shift_JIS too, so that nothing was lost
    "UTF-8 as Shift_JIS": "issue のトリアージにご協力いただくことで",
    "EUC-JP as Shift_JIS": "Vue のストーリーについては",
}
RULES = RepairRules()


def windows(data: bytes) -> str:
    """Bytes as a browser shows them when the page says windows-1252 (or Latin-1)."""
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in data)


MISTAKES = {
    "UTF-8 as windows-1252": lambda text: windows(text.encode()),
    "UTF-8 as Latin-1": lambda text: text.encode().decode("latin-1"),
    "UTF-8 as windows-1252, twice": lambda text: windows(windows(text.encode()).encode()),
    "Shift_JIS as windows-1252": lambda text: windows(text.encode("cp932")),
    "EUC-JP as Latin-1": lambda text: text.encode("euc_jp").decode("latin-1"),
    "UTF-8 as Shift_JIS": lambda text: text.encode().decode("cp932"),
    "EUC-JP as Shift_JIS": lambda text: text.encode("euc_jp").decode("cp932"),
}


def one(text: str, rules: RepairRules = RULES) -> str:
    return edit([text], rules)[0][0]


@pytest.mark.parametrize("name", MISTAKES)
def test_japanese_that_was_read_in_a_wrong_encoding_comes_back_exactly(name):
    text = f"{SHORT.get(name, SENTENCE)}\nOK"
    broken = MISTAKES[name](text)
    assert broken != text
    (mended,), counts = edit([broken], RULES)
    assert mended == text
    assert counts["mojibake"][0] > 0


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        pytest.param("cafÃ© and naÃ¯ve", "café and naïve", id="French"),
        pytest.param("Itâ€™s â€œfineâ€\x9d â€” reallyâ€¦", "It’s “fine” — really…", id="English quotes"),
        pytest.param("Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "привет", id="Cyrillic"),
        pytest.param("â‚¬ 5, Â© 2024, 20 Â°C", "€ 5, © 2024, 20 °C", id="symbols"),
        pytest.param("ðŸ‘‹ hello âœ… done", "👋 hello ✅ done", id="emoji"),
        pytest.param("í•œêµ\xadì–´", "한국어", id="Korean"),
    ],
)
def test_utf_8_that_was_read_as_windows_1252_comes_back(broken, mended):
    assert one(broken, RepairRules(invisible=False)) == mended


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("« un café… » et «café…»", id="a word before ellipsis and quote: bytes of one kanji"),
        pytest.param("VEĽKÝ ÍŠ a MAÇÃ”", id="capitals that are valid bytes"),
        pytest.param("São Paulo, Ångström, Ærø, über, 5 €", id="accents"),
        pytest.param("縺れた糸を繙く。繧を見る。", id="rare kanji that mojibake is made of"),
        pytest.param("ｱﾒﾘｶ､ｲｷﾞﾘｽ､ﾄﾞｲﾂ､ﾌﾗﾝｽ､ｲﾀﾘｱ", id="half-width katakana with half-width commas"),
        pytest.param("価格は ¥1,200 と ¤5、範囲は ±3 §4 です", id="currency signs"),
        pytest.param("ã‚ã", id="mojibake whose bytes were lost"),
        pytest.param("", id="nothing"),
    ],
)
def test_what_is_not_certain_stays(text):
    assert undo_mojibake(text) == (text, 0)


def test_a_doubtful_sequence_is_undone_beside_clear_ones():
    assert one("ReÃ§u Ã\x80 LYON, MAÃ‡Ã” naÃ¯f", RepairRules(invisible=False)) == "Reçu À LYON, MAÇÔ naïf"


def test_a_line_needs_four_signs():
    three, four = "､ｳ､ﾎ､ﾋ", "､ｳ､ﾎ､ﾋ､ﾏ"
    assert undo_mojibake(three)[0] == three
    assert undo_mojibake(four)[0] == "このには"


@pytest.mark.parametrize(
    ("broken", "mended", "column", "number"),
    [
        pytest.param("a\u200bb\ufeffc\u202e\x07d", "abcd", "invisible", 4, id="invisible"),
        pytest.param("ｶﾞｲﾄﾞ｡ガ", "ガイド。ガ", "half_width", 6, id="half-width katakana"),
        pytest.param("これは①㈱～です", "これは①㈱～です", "half_width", 0, id="vendor characters stay"),
    ],
)
def test_small_damage_is_repaired_and_counted(broken, mended, column, number):
    (new,), counts = edit([broken], RULES)
    assert (new, counts[column][0]) == (mended, number)


def test_each_repair_can_be_switched_off():
    none = RepairRules(mojibake=False, invisible=False, half_width=False)
    assert one("cafÃ© a\u200bb ｶﾞ", none) == "cafÃ© a\u200bb ｶﾞ"


@settings(max_examples=80)
@given(texts=st.lists(st.text(max_size=40), max_size=4))
def test_repairing_twice_changes_nothing_more_and_the_batch_does_not_matter(texts):
    once, counts = edit(texts, RULES)
    assert edit(once, RULES)[0] == once
    assert once == [one(text) for text in texts]
    assert [len(column) for column in counts.values()] == [len(texts)] * 3


@settings(max_examples=80)
@given(text=st.text(alphabet="ÃÂâé€œ…»\x81\x82‚ƒ¤､ｱ縺繧あ漢 a", max_size=30))
def test_repairing_text_full_of_signs_ends_and_is_stable(text):
    once = one(text)
    assert one(once) == once
    assert len(once) <= len(text)


@settings(max_examples=40)
@given(texts=st.lists(st.text(max_size=20), max_size=5))
def test_flags_are_those_of_every_character(texts):
    table = flag_table({1: range(0x30, 0x3A), 2: [0x3042, 0x1F600], 4: [10]})
    expected = [int(any("0" <= c <= "9" for c in t)) | 2 * ("あ" in t or "😀" in t) for t in texts]
    assert list(flagged(texts, table) & 3) == expected


@pytest.mark.skipif(not CORPORA.exists(), reason="../shared/data is not here")
def test_real_documents_are_left_alone():
    files = sorted(CORPORA.glob("corpus-[je][an]/*.jsonl.gz"))
    for path in files:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [json.loads(line)["text"] for line, _ in zip(lines, range(12), strict=False)]
        assert [undo_mojibake(text)[1] for text in texts] == [0] * len(texts), path.name
