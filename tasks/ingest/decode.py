"""Bytes of a page to text: which encoding they are in, and whether they are text at all.

Order: BOM, ISO-2022-JP escapes, strict UTF-8, what HTTP or the page declares, then the Japanese encoding whose decoding
has more kana, then a statistical detector. A declaration counts only if the bytes can be decoded by it.
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

# Labels of the web mean supersets: without them ①, ㈱ and ～ are lost.
_SHIFT_JIS = ("cp932", "shift_jisx0213")
_EUC_JP = ("euc_jp", "euc_jis_2004", "euc_jisx0213")
_ISO_2022 = ("iso2022_jp", "iso2022_jp_ext", "iso2022_jp_2004")
_FAMILIES = {
    **dict.fromkeys(("shift_jis", "shift-jis", "sjis", "x-sjis", "windows-31j", "ms_kanji", "cp932"), _SHIFT_JIS),
    **dict.fromkeys(("euc-jp", "euc_jp", "x-euc-jp", "eucjp"), _EUC_JP),
    **dict.fromkeys(("iso-2022-jp", "csiso2022jp", "jis"), _ISO_2022),
    **dict.fromkeys(("iso-8859-1", "latin1", "ascii", "us-ascii"), ("cp1252", "latin-1")),
}


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
    if _is_plausible(found):
        return found
    mended = Decoded(undo_mojibake(found.text)[0], found.encoding)  # in text that was encoded twice, bytes look like it
    return mended if _is_plausible(mended) else None


def _decode(content: bytes, content_type: str) -> Decoded | None:
    for bom, name in _BOMS:
        if content.startswith(bom):
            return _strictly(content, (name,))
    if content_type.startswith("text/x-python"):
        return _python(content)
    escapes = b"\x1b$" in content
    if escapes and content.isascii() and (found := _strictly(content, _ISO_2022)):
        return found
    if found := _strictly(content, ("utf-8",)):
        return found
    declared = _CHARSET.search(content_type)
    meta = _DECLARED.search(content[:META_BYTES])
    labels = [m.lower() for m in (declared and declared[1], meta and meta[1].decode("ascii")) if m]
    for label in labels:
        if (found := _strictly(content, _FAMILIES.get(label, (label,)))) and _is_plausible(found):
            return found
    if found := _japanese(content):
        return found
    return _leniently(content, labels)


def _strictly(content: bytes, encodings: tuple[str, ...]) -> Decoded | None:
    for encoding in encodings:
        try:
            return Decoded(content.decode(encoding), encoding.removesuffix("-sig"))
        except (UnicodeError, LookupError):
            continue
    return None


def _is_plausible(found: Decoded) -> bool:
    """A single-byte encoding decodes anything: it must not leave control characters where text should be."""
    return len(_GARBAGE.findall(found.text)) <= MAX_GARBAGE * max(1, len(found.text))


def _japanese(content: bytes) -> Decoded | None:
    """Shift_JIS or EUC-JP, whichever decodes and shows more kana."""
    candidates = [found for family in (_SHIFT_JIS, _EUC_JP) if (found := _strictly(content, family))]
    scored = [(len(_KANA.findall(found.text)) / max(1, len(found.text)), found) for found in candidates]
    best = max(scored, key=lambda item: item[0], default=(0.0, None))
    return best[1] if best[0] >= MIN_KANA else None


def _leniently(content: bytes, labels: list[str]) -> Decoded | None:
    """The decoding with the fewest broken characters among what was declared, UTF-8 and what a detector says."""
    guesses = [*(_FAMILIES.get(label, (label,))[0] for label in labels), "utf-8", detect_encoding(content) or "utf-8"]
    tried: list[Decoded] = []
    for guess in dict.fromkeys(guesses):
        try:
            tried.append(Decoded(content.decode(guess, "replace"), guess))
        except LookupError:
            continue
    return min(tried, key=lambda found: len(_GARBAGE.findall(found.text)), default=None)


def _python(content: bytes) -> Decoded | None:
    try:
        encoding, _ = tokenize.detect_encoding(BytesIO(content).readline)
        return Decoded(content.decode(encoding), encoding.removesuffix("-sig"))
    except (SyntaxError, UnicodeError, LookupError):
        return None
