"""What becomes of pages that are damaged as real crawls are: repaired, or dropped with the right reason; never a crash.

The kinds of damage to files and bytes (broken gzip members, lying headers, nested elements) are in test_sources.py,
test_decode.py and test_clean.py; near-duplicates in test_dedup.py.
"""

import json
import unicodedata
from pathlib import Path

import pytest
import zstandard

from tasks.ingest.config import CleanConfig
from tasks.shards import read_table
from tests.tasks.ingest.corpus import ENGLISH, SENTENCES, clean, html, japanese, mirror

CLEAN_TEXT = japanese(5).replace("</p>", "\n").replace("<p>", "").strip()
SUBJECTS = "春夏秋冬朝昼夕夜日月火水木"
EASY = "Svelte のような一部のフレームワークは"  # every byte of it in UTF-8 is a character of Shift_JIS


def windows(data: bytes) -> str:
    return "".join(bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in data)


def page(text: str) -> bytes:
    return html("".join(f"<p>{line}</p>" for line in text.split("\n")))


def half_width(text: str) -> str:
    wide = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFF9E)}
    return "".join(wide.get(char, char) for char in text)


REPAIRED = {  # kind -> (damaged text, what it becomes)
    "utf-8 read as windows-1252": (windows(CLEAN_TEXT.encode()), CLEAN_TEXT),
    "utf-8 read as windows-1252 twice": (windows(windows(CLEAN_TEXT.encode()).encode()), CLEAN_TEXT),
    "shift_jis read as windows-1252": (windows(CLEAN_TEXT.encode("cp932")), CLEAN_TEXT),
    "euc-jp read as latin-1": (CLEAN_TEXT.encode("euc_jp").decode("latin-1"), CLEAN_TEXT),
    "utf-8 read as shift_jis": (f"{CLEAN_TEXT}\n{EASY.encode().decode('cp932')}", f"{CLEAN_TEXT}\n{EASY}"),
    "zero-width characters": ("\u200b".join(CLEAN_TEXT), CLEAN_TEXT),
    "direction marks and soft hyphens": (CLEAN_TEXT.replace("、", "\u202e、\u00ad"), CLEAN_TEXT),
    "byte order marks inside": (CLEAN_TEXT.replace("\n", "\n\ufeff"), CLEAN_TEXT),
    "control characters": (CLEAN_TEXT.replace("\n", "\x07\n"), CLEAN_TEXT),
    "decomposed characters": (unicodedata.normalize("NFD", CLEAN_TEXT), CLEAN_TEXT),
    "half-width katakana": (half_width(f"{CLEAN_TEXT}\nカタカナノ ガイド"), f"{CLEAN_TEXT}\nカタカナノ ガイド"),
    "full-width ascii": (f"{CLEAN_TEXT}\nＤｅｂｉａｎ１２です。", f"{CLEAN_TEXT}\nDebian12です。"),
    "western punctuation": (CLEAN_TEXT.replace("、", "，").replace("。", "．"), CLEAN_TEXT),
    "a footer": (f"{CLEAN_TEXT}\nプライバシーポリシー 利用規約\nCopyright 例", CLEAN_TEXT),
    "untranslated prose": (f"{CLEAN_TEXT}\n{ENGLISH[:100]}\n{SENTENCES[0]}", f"{CLEAN_TEXT}\n{SENTENCES[0]}"),
    "personal data": (f"{CLEAN_TEXT}\n連絡先は a@nestling.jp です。", f"{CLEAN_TEXT}\n連絡先は <EMAIL> です。"),
}
DROPPED = {  # kind -> (damaged text, reason)
    "lost characters": (CLEAN_TEXT.replace("を", "\ufffd"), "lost_characters"),
    "utf-8 read as shift_jis with lost bytes": (
        CLEAN_TEXT + "\n" + SENTENCES[0].encode().decode("cp932", "ignore"),
        "mojibake",
    ),
    "navigation only": (
        "\n".join(f"{a}と{b}の頁" for a in SUBJECTS for b in "東西南北上下左右前"),
        "short_sentences",
    ),
    "repeated lines": ("\n".join(SENTENCES[:2] * 15), "duplicate_lines"),
    "one huge line": ("あいうえおかきくけこさしすせそ" * 20_000, "long_sentences"),
    "lists of katakana words": ("\n".join(f"アメリカ{chr(0x30A2 + n)}カナダ" * 3 for n in range(40)), "low_hiragana"),
    "teasers": ("\n".join(f"{n}番目の話の続きを読むにはこちらの頁へどうぞ…" for n in range(40)), "ellipsis"),
    "abuse": (CLEAN_TEXT + "".join(f"\n{a}の馬鹿野郎とクソガキの話です。" for a in SUBJECTS), "ng_words"),
    "another language": (ENGLISH, "language:en"),
    "almost nothing": ("短い文です。", "too_short"),
    "nothing but invisible characters": ("\u200b\ufeff\u00ad", "empty"),
}


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line.strip()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    damaged = {kind: text for kind, (text, _) in (REPAIRED | DROPPED).items()}
    pages = mirror(folder, {f"{number}.html": page(text) for number, text in enumerate(damaged.values())}, 100)
    config = CleanConfig(language="ja", workers=1, extractor="resiliparse_all").with_changes(
        {"filters.character_ngrams": None, "edits.foreign_lines.min_words": 6}
    )
    artifact = clean(folder / "store", pages, config)
    names = {f"{number}.html": kind for number, kind in enumerate(damaged)}
    documents = {names[row["url"]]: row["text"] for row in read_table(artifact, "docs/").to_pylist()}
    files = sorted(Path(artifact.url.removeprefix("file://")).glob("rejects/**/*.zst"))
    rows = [
        json.loads(line)
        for file in files
        for line in zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().splitlines()
    ]
    return documents, {names[row["url"]]: row["reason"] for row in rows}


@pytest.mark.parametrize("kind", REPAIRED)
def test_what_can_be_repaired_is_repaired(made, kind):
    documents, reasons = made
    assert kind in documents, reasons.get(kind)
    assert lines(documents[kind]) == lines(REPAIRED[kind][1])


@pytest.mark.parametrize("kind", DROPPED)
def test_what_cannot_be_repaired_is_dropped_with_its_reason(made, kind):
    documents, reasons = made
    assert reasons.get(kind) == DROPPED[kind][1]
    assert kind not in documents
