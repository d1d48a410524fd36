"""Undoes mojibake where that is certain, removes invisible characters, and makes half-width katakana full-width."""

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.characters import HALF_KATAKANA, INVISIBLE, flag_table, flagged, wide_katakana
from tasks.ingest.edits.edit import Counts

COLUMNS = ("mojibake", "invisible", "half_width")

# Windows-1252 as browsers read it: the five bytes that it does not define are the control characters of Latin-1.
_BYTE_OF = {ord(bytes([byte]).decode("cp1252", "ignore") or chr(byte)): byte for byte in range(0x80, 0xA0)}
_LATIN_BYTES = str.maketrans({code: chr(byte) for code, byte in _BYTE_OF.items()})
_CONTINUATION = "\x80-\xbf" + "".join(re.escape(chr(code)) for code in _BYTE_OF)
_SEQUENCE = (  # one character of UTF-8, each byte of it read as a character of Windows-1252
    f"(?:[\xc2-\xdf][{_CONTINUATION}]|[\xe0-\xef][{_CONTINUATION}]{{2}}|[\xf0-\xf4][{_CONTINUATION}]{{3}})"
)
_RUN = re.compile(f"(?<![\x80-\x9f\xa1-\xff]){_SEQUENCE}+(?![\x80-\x9f\xa1-\xff])")  # as a whole or not at all
_ONE = re.compile(_SEQUENCE)
# What may follow an accented letter in good text: café…», ÍŠ, nº. A sequence of only these proves nothing,
_NATURAL = frozenset("‘’“”‚„‹›«»…–—•·°ºª¹²³©®™€£¡¿†‡‰\xa0ŠšŽžŒœŸ¼½¾§´¸¨¯")
_CLOSING = frozenset(
    "‘’“”‹›«»…–—•·\xa0"
)  # … but of these few after Â and Ã, which hardly any language ends a word with.
_PLAUSIBLE = (  # scripts and symbols of the web that UTF-8 writes with three bytes
    (0x0900, 0x1FFF),
    (0x2000, 0x2BFF),
    (0x2E80, 0xD7A3),
    (0xF900, 0xFAFF),
    (0xFE00, 0xFE0F),
    (0xFE30, 0xFFEF),
)
_PROOFS = ("â€", "âœ", "â”€", "â”œ", "â”‚", "ðŸ", "ï»¿")  # quotes, ticks, box drawing, emoji, the byte order mark

_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fc]")
_HIRAGANA = re.compile("[\u3041-\u3096]")
_NOT_ASCII = re.compile("[^\x00-\x7f]")
_NOT_JAPANESE = re.compile(
    "[^\x00-\x7f\u2010-\u2027\u2030-\u203b\u2190-\u21ff\u2200-\u22ff\u2460-\u24ff\u2500-\u266f\u3000-\u30ff"
    "\u3220-\u33ff\u3400-\u9fff\uf900-\ufaff\uff01-\uff5e\uff61-\uff9f\uffe0-\uffe6\u00a7\u00a8\u00b0\u00b1\u00b4"
    "\u00b6\u00d7\u00f7\u0370-\u045f]"
)
_LEAST_SIGNS = 4  # kana that a line must show before and after: three may be chance
_LATIN = "latin"


@dataclass(frozen=True)
class _Mistake:
    """Japanese bytes that were read as another encoding."""

    gate: str  # one of these characters is in every such line, and in few others
    signs: re.Pattern[str]  # a pair of characters that the mistake is full of
    read_as: str
    truly: str
    wanted: re.Pattern[str]  # what the line must hold once it is undone
    share: float  # of the characters that are not ASCII


_MISTAKES = (
    _Mistake("縺繧繝縲", re.compile("[縺繧繝縲]"), "cp932", "utf-8", _KANA, 0.2),
    _Mistake("‚ƒ\x82\x83", re.compile("[‚ƒ\x82\x83][@-~\x80-\xfc‚-›Œ-ž]"), _LATIN, "cp932", _KANA, 0.25),
    _Mistake("¤¥", re.compile("[¤¥][¡-ö]"), _LATIN, "euc_jp", _KANA, 0.25),
    _Mistake("､", re.compile("[､･][｡-ﾟ]"), "cp932", "euc_jp", _HIRAGANA, 0.3),
)


# U+0080 to U+00AD may be bytes of mojibake that lost a neighbour: the normaliser removes them, not the repair.
_INVISIBLE_AND_NO_BYTE = re.compile(f"(?![\x80-\xad]){INVISIBLE.pattern}")
_NEEDS = flag_table({1: [*range(0xC2, 0xF5), *range(0xFF61, 0xFFA0)]})
_NEEDS[[code for code in range(0x10000) if _INVISIBLE_AND_NO_BYTE.match(chr(code))]] = 1
for _mistake in _MISTAKES:
    _NEEDS[list(map(ord, _mistake.gate))] = 1


class RepairRules(StageConfig):
    """What to repair. None of it needs a guess: what cannot be undone with certainty stays as it is."""

    mojibake: bool = Field(default=True, description="UTF-8, Shift_JIS and EUC-JP that were read as another encoding.")
    invisible: bool = Field(default=True, description="Remove control, zero-width and direction characters.")
    half_width: bool = Field(default=True, description="Half-width katakana become full-width.")


def edit(texts: list[str], rules: RepairRules) -> tuple[list[str], Counts]:
    """Repaired texts, and how many characters were mojibake, invisible, or half-width katakana.

    Idempotent. Mojibake is undone where the bytes are strictly valid in the true encoding, and what comes out is
    letters that text is made of; doubtful sequences (`café…»`) only in a text that has at least as many clear ones.
    Lost bytes (U+FFFD, removed controls) are not guessed; the filter `garbled` measures what is left.
    """

    counts = {name: np.zeros(len(texts), np.int64) for name in COLUMNS}
    repaired = list(texts)
    for index in np.flatnonzero(flagged(texts, _NEEDS)):
        repaired[index], found = _repair(texts[index], rules)
        for name, number in found.items():
            counts[name][index] = number
    return repaired, counts


def _repair(text: str, rules: RepairRules) -> tuple[str, Counter[str]]:
    """One repair may lay bare another (a zero-width space inside mojibake), so they go on until none finds anything.

    They end: each makes the text shorter or leaves fewer half-width characters.
    """
    done: Counter[str] = Counter()
    while True:
        before = text
        if rules.invisible:
            text, number = _INVISIBLE_AND_NO_BYTE.subn("", text)
            done["invisible"] += number
        if rules.mojibake:
            text, number = undo_mojibake(text)
            done["mojibake"] += number
        if rules.half_width:
            done["half_width"] += len(HALF_KATAKANA.findall(text))
            text = wide_katakana(text)
        if text == before:
            return text, done


def undo_mojibake(text: str) -> tuple[str, int]:
    """The text without mojibake, and the characters that were replaced; more than one layer is undone.

    Each layer makes the text shorter, so that the loop ends.
    """
    replaced = 0
    while True:
        mended = _utf8_in_latin(_japanese(text))
        if mended == text:
            return text, replaced
        replaced += len(text) - len(mended)
        text = mended


def _utf8_in_latin(text: str) -> str:
    runs = [(found, mended) for found in _RUN.finditer(text) if (mended := _decoded(found[0])) is not None]
    if not runs:
        return text
    clear = [any(_is_clear(part) for part in _ONE.findall(found[0])) for found, _ in runs]
    all_of_them = sum(clear) >= len(clear) / 2
    parts, end = [], 0
    for (found, mended), sure in zip(runs, clear, strict=True):
        if sure or (all_of_them and any(clear)):
            parts += [text[end : found.start()], mended]
            end = found.end()
    return "".join([*parts, text[end:]])


def _decoded(run: str) -> str | None:
    """What the bytes of a run say in UTF-8; None when they are no UTF-8 or name no character of a text."""
    try:
        mended = run.translate(_LATIN_BYTES).encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return None
    return mended if all(map(_is_plausible, mended)) else None


def _is_plausible(char: str) -> bool:
    code = ord(char)
    if 0x800 <= code < 0x10000 and not any(first <= code <= last for first, last in _PLAUSIBLE):
        return False
    # C1 controls may be a byte of the next layer of mojibake.
    return unicodedata.category(char) not in {"Cn", "Co", "Cs"}


def _is_clear(sequence: str) -> bool:
    """No text would hold this sequence of characters by itself."""
    if sequence[0] in "ÂÃ":
        return sequence[1] not in _CLOSING
    return sequence.startswith(_PROOFS) or not _NATURAL.issuperset(sequence[1:])


def _japanese(text: str) -> str:
    """Lines whose Japanese was read in a wrong encoding; a line is undone as a whole or not at all."""
    possible = [mistake for mistake in _MISTAKES if any(char in text for char in mistake.gate)]
    if not possible:
        return text
    return "\n".join(_japanese_line(line, possible) for line in text.split("\n"))


def _japanese_line(line: str, possible: list[_Mistake]) -> str:
    for mistake in possible:
        if len(mistake.signs.findall(line)) < _LEAST_SIGNS:
            continue
        mended = _read_again(line, mistake)
        needed = max(_LEAST_SIGNS, mistake.share * len(_NOT_ASCII.findall(mended)))
        if len(mistake.wanted.findall(mended)) >= needed and not _NOT_JAPANESE.search(mended):
            return mended
    return line


def _read_again(line: str, mistake: _Mistake) -> str:
    """The line in its true encoding; empty when it has characters or bytes that the mistake cannot have made."""
    try:
        if mistake.read_as != _LATIN:
            return line.encode(mistake.read_as).decode(mistake.truly)
        original = line.translate(_LATIN_BYTES).encode("latin-1")
    except UnicodeError:
        return ""
    try:
        original.decode("utf-8")
        return ""  # then it is that: nothing else is so seldom valid by chance
    except UnicodeDecodeError:
        pass
    try:
        return original.decode(mistake.truly)
    except UnicodeDecodeError:
        return ""
