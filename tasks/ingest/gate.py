"""The fast language gate: is a page worth extracting at all? Only the `lang` in its head and its title are looked at.

Common Crawl is 3 % Japanese: most pages are answered here for a hundredth of what extraction costs. The gate may let a
page in that the precise identification of the text then drops; what it keeps out is never seen again.
Source: swallow-llm/swallow-corpus @ 2d03507 (recipes 1.1): an html tag with lang=ja, or a title that reads as Japanese
after UTF-8, Shift_JIS and EUC-JP have been tried. Their detector of the title is a linear model that was not published;
here kana decide, and kanji where the page declares a Japanese encoding.
"""

import html
import re

GATED_TYPES = ("text/html", "application/xhtml")  # plain text has neither tag nor title: it always passes
HEAD_BYTES = 1 << 16  # where the html tag and the title are looked for

_LANG = re.compile(rb"<html\b[^>]{0,1000}?(?<![\w-])lang\s*=\s*[\"']?\s*ja", re.IGNORECASE)
_TITLE = re.compile(rb"<title\b[^>]{0,200}>(.{0,1000}?)<", re.IGNORECASE | re.DOTALL)
_JAPANESE_CHARSET = re.compile(
    rb"charset\s*=\s*[\"']?\s*(?:shift[_-]jis|x-sjis|sjis|windows-31j|cp932|euc-?jp|x-euc-jp|iso-2022-jp)",
    re.IGNORECASE,
)
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa]")  # not half-width katakana: random bytes become them in Shift_JIS
_KANJI = re.compile("[\u3005\u3400-\u9fff]")


def passes_gate(content: bytes, content_type: str) -> bool:
    """Whether a page may be Japanese. Pure, never raises; cost: a look at the first 64 KiB."""
    if not content_type.lower().startswith(GATED_TYPES):
        return True
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        content = content[: 2 * HEAD_BYTES].decode("utf-16", "replace").encode()
    head = content[:HEAD_BYTES]
    if _LANG.search(head):
        return True
    declared = bool(_JAPANESE_CHARSET.search(head) or _JAPANESE_CHARSET.search(content_type.encode("utf-8", "replace")))
    found = _TITLE.search(head)
    return found is not None and _is_japanese(found[1], declared)


def _is_japanese(title: bytes, declared: bool) -> bool:
    encodings = ("iso2022_jp",) if b"\x1b$" in title else ("utf-8", "cp932", "euc_jp")
    for encoding in encodings:
        try:
            text = html.unescape(title.decode(encoding))
        except UnicodeError:
            continue
        if _KANA.search(text) or (declared and _KANJI.search(text)):
            return True
        if encoding == "utf-8":  # it is UTF-8: the bytes mean nothing in the others
            return False
    return False
