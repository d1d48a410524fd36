"""Undoes text that was read in a wrong encoding, where that is certain."""

import re
import unicodedata
from dataclasses import dataclass

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
_BOUNDS = re.compile("([\n<>])")
_LEAST_SIGNS = 4  # kana that a piece must show before and after: three may be chance
_LATIN = "latin"


@dataclass(frozen=True)
class Mistake:
    """Japanese bytes that were read as another encoding."""

    gate: str  # one of these characters is in every such line, and in few others
    signs: re.Pattern[str]  # a pair of characters that the mistake is full of
    read_as: str
    truly: str
    wanted: re.Pattern[str]  # what the line must hold once it is undone
    share: float  # of the characters that are not ASCII


MISTAKES = (
    Mistake("縺繧繝縲", re.compile("[縺繧繝縲]"), "cp932", "utf-8", _KANA, 0.2),
    Mistake("‚ƒ\x82\x83", re.compile("[‚ƒ\x82\x83][@-~\x80-\xfc‚-›Œ-ž]"), _LATIN, "cp932", _KANA, 0.25),
    Mistake("¤¥", re.compile("[¤¥][¡-ö]"), _LATIN, "euc_jp", _KANA, 0.25),
    Mistake("､", re.compile("[､･][｡-ﾟ]"), "cp932", "euc_jp", _HIRAGANA, 0.3),
)


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
    """Pieces whose Japanese was read in a wrong encoding; one is undone as a whole or not at all.

    Lines and tags of HTML bound a piece: their characters are no second byte in any of the encodings.
    """
    possible = [mistake for mistake in MISTAKES if any(char in text for char in mistake.gate)]
    if not possible:
        return text
    return "".join(_japanese_piece(piece, possible) for piece in _BOUNDS.split(text))


def _japanese_piece(piece: str, possible: list[Mistake]) -> str:
    for mistake in possible:
        if len(mistake.signs.findall(piece)) < _LEAST_SIGNS:
            continue
        mended = _read_again(piece, mistake)
        needed = max(_LEAST_SIGNS, mistake.share * len(_NOT_ASCII.findall(mended)))
        if len(mistake.wanted.findall(mended)) >= needed and not _NOT_JAPANESE.search(mended):
            return mended
    return piece


def _read_again(piece: str, mistake: Mistake) -> str:
    """The piece in its true encoding; empty when it has characters or bytes that the mistake cannot have made."""
    try:
        if mistake.read_as != _LATIN:
            return piece.encode(mistake.read_as).decode(mistake.truly)
        original = piece.translate(_LATIN_BYTES).encode("latin-1")
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
