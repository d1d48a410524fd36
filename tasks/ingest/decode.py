"""Bytes of a page to text: which encoding they are in, and whether they are text at all.

Order: BOM, ISO-2022-JP escapes, strict UTF-8, what HTTP or the page declares, then the Japanese encoding whose decoding
has more kana, then line by line (pages pasted together from two encodings), then a statistical detector. A declaration
counts only if the bytes can be decoded by it. UTF-8 that was read as Windows-1252 and written again (mojibake) is
undone.
"""

import codecs
import re
import tokenize
from dataclasses import dataclass
from io import BytesIO

from resiliparse.parse.encoding import detect_encoding

from tasks.ingest.mojibake import undo_mojibake

META_BYTES = 4096  # browsers look for the declaration in the first kilobyte; some pages open with long scripts
MAX_GARBAGE = 0.02  # share of control and replacement characters above which bytes are not text
MIN_KANA = 0.02  # share of kana from which a legacy Japanese decoding is plausible

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_DECLARED = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_CHARSET = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")
_GARBAGE = re.compile("[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f\x7f-\x9f\ufffd]")

_MAYBE_GARBAGE = bytes((*(code for code in (*range(0x20), 0x7F) if _GARBAGE.match(chr(code))), 0xC2))
_CJK = re.compile("[\u3001-\u30ff\u3400-\u9fff\uff01-\uff9f]")
_TWICE = (b"\xc3\xa3\xc2\x81", b"\xc3\xa3\xc2\x82", b"\xc3\xa3\xe2\x80\x9a")  # kana's first bytes as Latin, in UTF-8

# Labels of the web mean supersets: without them ①, ㈱ and ～ are lost. In EUC and JIS these characters stand where
# Windows put them (_VENDOR); JIS X 0213, which gives some of those places to other characters, comes last.
_VENDOR = "nestling-vendor"
_SHIFT_JIS = (("cp932", "strict"), ("shift_jisx0213", "strict"))
_EUC_JP = (("euc_jp", "strict"), ("euc_jp", _VENDOR), ("euc_jis_2004", "strict"))
_ISO_2022 = (("iso2022_jp_ext", "strict"), ("iso2022_jp_ext", _VENDOR), ("iso2022_jp_2004", "strict"))
_FAMILIES = {
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j", "ms_kanji", "cp932"), _SHIFT_JIS),
    **dict.fromkeys(("euc-jp", "euc_jp", "x-euc-jp", "eucjp"), _EUC_JP),
    **dict.fromkeys(("iso-2022-jp", "csiso2022jp", "jis"), _ISO_2022),
    **dict.fromkeys(("iso-8859-1", "latin1", "ascii", "us-ascii"), (("cp1252", "strict"), ("latin-1", "strict"))),
}
# Labels that Python knows but no browser: who names one is lying, and some take a time that grows with its square.
_NO_PAGE = ("punycode", "idna", "unicode_escape", "unicode-escape", "raw_unicode_escape", "utf-7", "utf7", "undefined")
Attempts = tuple[tuple[str, str], ...]  # codec and error handler, in order


@dataclass(frozen=True)
class Decoded:
    """Text and the encoding it was in."""

    text: str
    encoding: str


def decode(content: bytes, content_type: str = "") -> Decoded | None:
    """The text of a page, or None when the bytes are not text. Never raises."""
    found = _decode(content, content_type)
    if found is None:
        return None
    if _is_plausible(found, content):
        return found
    text, _ = undo_mojibake(found.text)  # in Shift_JIS or EUC-JP that was read as another encoding, bytes look like it
    return Decoded(text, found.encoding) if _has_little_garbage(text) else None


def _decode(content: bytes, content_type: str) -> Decoded | None:
    for bom, name in _BOMS:
        if content.startswith(bom):
            return _strictly(content, _attempts(name)) or _leniently(content, [name])
    if content_type.startswith("text/x-python"):
        return _python(content)
    if content.isascii() and b"\x1b$" in content and (found := _strictly(content, _ISO_2022)):
        return found
    if found := _strictly(content, _attempts("utf-8")):
        return _undone(found) if "ã" in found.text and any(mark in content for mark in _TWICE) else found
    declared = _CHARSET.search(content_type)
    meta = _DECLARED.search(content[:META_BYTES])
    found = [m.lower() for m in (declared and declared[1], meta and meta[1].decode("ascii")) if m]
    labels = [label for label in found if label not in _NO_PAGE]
    # Servers say iso-8859-1 unasked, and it decodes anything: it counts after all else, kana included.
    for label in sorted(labels, key=_is_western):
        if _is_western(label) and (found := _japanese(content)):
            return found
        if (found := _strictly(content, _attempts(label))) and _is_plausible(found, content):
            return found
    return _japanese(content) or _mixed(content) or _leniently(content, labels)


def _is_western(label: str) -> bool:
    return label in ("latin1", "ascii", "us-ascii", "cp1252") or label.startswith(("iso-8859", "windows-125"))


def _attempts(label: str) -> Attempts:
    return _FAMILIES.get(label, ((label, "strict"),))


def _strictly(content: bytes, attempts: Attempts) -> Decoded | None:
    for encoding, errors in attempts:
        try:
            return Decoded(content.decode(encoding, errors), encoding.removesuffix("-sig").removesuffix("_ext"))
        except (UnicodeError, LookupError):
            continue
    return None


def _vendor(error: UnicodeError) -> tuple[str, int]:
    """Read two bytes of EUC-JP or JIS that the standard leaves free as Windows does: by their place in Shift_JIS."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    pair = error.object[error.start : error.start + 2]
    row, cell = (byte & 0x7F for byte in pair) if len(pair) == 2 and pair[0] & 0x80 == pair[1] & 0x80 else (0, 0)
    if not (0x21 <= row <= 0x7E and 0x21 <= cell <= 0x7E):
        raise error
    lead = ((row - 0x21) >> 1) + (0x81 if row < 0x5F else 0xC1)
    trail = cell + (0x7E if row % 2 == 0 else 0x1F if cell < 0x60 else 0x20)
    return bytes((lead, trail)).decode("cp932"), error.start + 2


codecs.register_error(_VENDOR, _vendor)


def _is_plausible(found: Decoded, content: bytes) -> bool:
    """Whether there are few enough control and replacement characters: a single-byte encoding decodes anything."""
    allowed = MAX_GARBAGE * max(1, len(found.text))
    # Counting bytes is ten times as fast, and says too much at most: 0xC2 begins more than controls.
    is_plain = found.encoding == "utf-8" and "\ufffd" not in found.text and b"\x1b" not in content
    if is_plain and len(content) - len(content.translate(None, _MAYBE_GARBAGE)) <= allowed:
        return True
    return _has_little_garbage(found.text)


def _has_little_garbage(text: str) -> bool:
    return len(_GARBAGE.findall(text)) <= MAX_GARBAGE * max(1, len(text))


def _japanese(content: bytes) -> Decoded | None:
    """Shift_JIS or EUC-JP, whichever decodes and shows more kana."""
    candidates = [found for family in (_SHIFT_JIS, _EUC_JP) if (found := _strictly(content, family))]
    scored = [(len(_KANA.findall(found.text)) / max(1, len(found.text)), found) for found in candidates]
    best = max(scored, key=lambda item: item[0], default=(0.0, None))
    return best[1] if best[0] >= MIN_KANA else None


def _mixed(content: bytes) -> Decoded | None:
    """A page of two encodings: lines that are UTF-8, and others that are all of one Japanese encoding.

    A line counts as UTF-8 when it decodes and shows Japanese characters; two bytes of half-width katakana in Shift_JIS
    are often valid UTF-8 of another script.
    """
    lines = content.split(b"\n")
    plain: dict[int, str] = {}
    for number, line in enumerate(lines):
        found = _strictly(line, _attempts("utf-8"))
        if found and (line.isascii() or _CJK.search(found.text)):
            plain[number] = found.text
    rest = [number for number in range(len(lines)) if number not in plain]
    legacy = _japanese(b"\n".join(lines[number] for number in rest))
    if legacy is None or all(text.isascii() for text in plain.values()):
        return None
    plain |= dict(zip(rest, legacy.text.split("\n"), strict=True))
    return Decoded("\n".join(plain[number] for number in range(len(lines))), f"utf-8+{legacy.encoding}")


def _undone(found: Decoded) -> Decoded:
    """Japanese whose UTF-8 bytes were taken for Windows-1252 and encoded again, made whole; else the text as it is."""
    try:
        content = b"".join(_single_byte(char) for char in found.text)
        text = content.decode("utf-8")
    except UnicodeError:
        return found
    return Decoded(text, "utf-8 twice") if _KANA.search(text) else found


def _single_byte(char: str) -> bytes:
    return char.encode("latin-1") if char <= "\xff" else char.encode("cp1252")


def _leniently(content: bytes, labels: list[str]) -> Decoded | None:
    """The decoding with the fewest broken characters among what was declared, UTF-8 and what a detector says."""
    guesses = [*(_attempts(label)[0][0] for label in labels), "utf-8", detect_encoding(content) or "utf-8"]
    if b"\x1b$" in content:
        guesses.append("iso2022_jp_ext")
    tried: list[Decoded] = []
    for guess in dict.fromkeys(guesses):
        try:
            tried.append(Decoded(content.decode(guess, "replace"), guess.removesuffix("_ext")))
        except (UnicodeError, LookupError):
            continue
    return min(tried, key=lambda found: len(_GARBAGE.findall(found.text)), default=None)


def _python(content: bytes) -> Decoded | None:
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
        return Decoded(content.decode(encoding), encoding.removesuffix("-sig"))
    except (SyntaxError, UnicodeError, LookupError):
        return None
