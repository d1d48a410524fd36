"""Wikitext to plain text: what a reader of the article sees, without boxes, tables, references, pictures, categories.

One pass over the marks, in time that grows with the text however they nest or are left open. Templates are not
resolved: a few that only wrap words keep them (`WRAPPERS`), all others are cut out. Where a dump with plain text exists
(cirrussearch), it is better. Written here because no parser of wikitext is among our dependencies.
"""

import html
import re
from collections.abc import Iterable

MAX_DEPTH = 100  # MediaWiki itself stops at 40 templates
WRAPPERS = {  # template -> which of its unnamed values is the text
    "lang": 1,
    "仮リンク": 0,
    "ill": 0,
    "ruby": 0,
    "読み仮名": 0,
    "nowrap": 0,
    "small": 0,
    "補助漢字フォント": 0,
}
PICTURES = ("file", "image", "media", "ファイル", "画像")
CATEGORIES = ("category", "カテゴリ")

_MARK = re.compile(r"(\{\{|\}\}|\[\[|\]\]|^[ \t:]*\{\||^[ \t]*\|\}(?!\}))", re.MULTILINE)
_CLOSES = {"}}": "{{", "]]": "[[", "|}": "{|"}
_COMMENT = (re.compile("<!--"), re.compile("-->"))
_DROPPED = tuple(
    (re.compile(rf"<{tag}\b[^<>]*>", re.IGNORECASE), re.compile(rf"</{tag}\s*>", re.IGNORECASE))
    for tag in ("ref", "gallery", "timeline", "imagemap", "score", "templatestyles", "references", "style", "script")
)
_BREAK = re.compile(r"<(?:br|hr|p|/p|div|/div)\b[^<>]{0,500}>", re.IGNORECASE)
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,500}>")
_LINK = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]+[ \t]*([^\[\]\n]*)\]")
_QUOTES = re.compile("'{2,5}")
_WORD = re.compile(r"__[A-Z]{3,20}__|__[^\W\d_]{2,10}__")
_HEADING = re.compile(r"(={1,6})[ \t]*(.*?)[ \t]*=+[ \t]*")
_LIST = re.compile(r"[*#]+[ \t]*")
_INDENT = re.compile(r"[:;]+[ \t]*")
_EMPTY_BRACKETS = re.compile(r"[（(][\s、,;；：:]*[）)]")
_BLANK_LINES = re.compile(r"\n{3,}")


def plain(text: str, pictures: Iterable[str] = (), categories: Iterable[str] = ()) -> str:
    """The readable text. `pictures` and `categories` are the wiki's own names of these namespaces."""
    text = _cut(text, *_COMMENT)
    for opening, closing in _DROPPED:
        text = _cut(text, opening, closing)
    hidden = {name.strip().lower() for name in (*PICTURES, *CATEGORIES, *pictures, *categories)}
    text = _resolved(text, hidden)
    text = _TAG.sub("", _BREAK.sub("\n", _LINK.sub(r"\1", text)))
    text = _EMPTY_BRACKETS.sub("", html.unescape(_WORD.sub("", _QUOTES.sub("", text))))
    return _BLANK_LINES.sub("\n\n", "\n".join(_lines(text))).strip("\n")


def _cut(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> str:
    """The text without everything from an opening to the next closing; one that is never closed stays."""
    parts: list[str] = []
    at = 0
    while found := opening.search(text, at):
        parts.append(text[at : found.start()])
        at = found.end()
        if found[0].endswith("/>"):
            continue
        end = closing.search(text, at)
        if end is None:
            parts.append(found[0])
            break
        at = end.end()
    return "".join([*parts, text[at:]])


def _resolved(text: str, hidden: set[str]) -> str:
    """Templates, tables and links replaced by what is shown of them; a mark without its partner is left out."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    for piece in _MARK.split(text):
        mark = piece.strip(" \t:") if len(piece) < 200 else ""
        if mark in ("{{", "[[", "{|"):
            if len(stack) < MAX_DEPTH:
                stack.append((mark, []))
        elif mark in _CLOSES:
            if any(opened == _CLOSES[mark] for opened, _ in stack):
                _close(stack, _CLOSES[mark], hidden)
        else:
            stack[-1][1].append(piece)
    while len(stack) > 1:
        _, inner = stack.pop()
        stack[-1][1].extend(inner)
    return "".join(stack[0][1])


def _close(stack: list[tuple[str, list[str]]], wanted: str, hidden: set[str]) -> None:
    """End the innermost construct of this kind; what was opened inside it and never closed becomes text."""
    while True:
        opened, inner = stack.pop()
        if opened == wanted:
            stack[-1][1].append(_shown(opened, "".join(inner), hidden))
            return
        stack[-1][1].extend(inner)


def _shown(opened: str, inner: str, hidden: set[str]) -> str:
    if opened == "{|":
        return ""
    fields = inner.split("|")
    name = fields[0].strip()
    if opened == "{{":
        place = WRAPPERS.get(name.lower())
        unnamed = [field for field in fields[1:] if "=" not in field]
        return unnamed[place].strip() if place is not None and place < len(unnamed) else ""
    namespace = name.partition(":")[0].strip().lower()
    if ":" in name and not name.startswith(":") and namespace in hidden:
        return ""
    return fields[-1] if len(fields) > 1 and fields[-1].strip() else name.lstrip(":")


def _lines(text: str) -> list[str]:
    """Lines without list and heading marks; a heading with nothing below it is left out."""
    kept: list[str] = []
    below = 0  # level of the heading that comes next; 7 when text does, 0 at the end
    for line in reversed(text.split("\n")):
        stripped = line.strip()
        heading = _HEADING.fullmatch(stripped) if len(stripped) < 500 and stripped.startswith("=") else None
        if heading is None:
            shown = _INDENT.sub("", _LIST.sub("- ", stripped, count=1), count=1) if stripped[:1] in "*#:;" else stripped
            shown = "" if shown in ("-", "- ") else shown
            kept.append(shown)
            below = 7 if shown else below
        elif below > len(heading[1]):
            kept += ["", heading[2], ""]
            below = len(heading[1])
    return kept[::-1]
