"""Documentation markup cleaned just as far as a reader would: front matter, comments, pictures and link targets go.

Headings, lists, code and emphasis stay as they were written: they are text that people write. All functions are pure.
"""

import re

_FRONT = re.compile(r"\A(?:---|\+\+\+)[ \t]*\n(.{0,20000}?)\n(?:---|\+\+\+)[ \t]*(?:\n|\Z)", re.DOTALL)
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_MD_IMAGE = re.compile(r"!\[([^\[\]\n]{0,500})\](?:\([^()\n]{0,2000}\)|\[[^\[\]\n]{0,200}\])")
_MD_LINK = re.compile(
    r"(?<!!)\[([^\[\]\n]{1,1000})\](?:\([^()\s]{0,2000}(?:[ \t]+[^()\n]{0,300})?\)|\[[^\[\]\n]{0,200}\])"
)
_MD_TARGET = re.compile(r"^[ ]{0,3}\[[^\[\]\n]{1,200}\]:[ \t]*\S+.*\n?", re.MULTILINE)
_MD_TAG = re.compile(
    r"</?(?:p|div|span|a|img|br|center|details|summary|sub|sup|kbd|b|i|em|strong|h[1-6]|table|t[rdh])\b[^<>\n]{0,1000}>",
    re.IGNORECASE,
)
_MD_EMPTY = re.compile(r"^[ \t]*(?:\[[ \t]*\]\([^()\n]{0,2000}\)[ \t]*)+$\n?", re.MULTILINE)

_RST_DIRECTIVE = re.compile(
    r"^([ \t]*)\.\.[ \t]+(?:([\w:+.-]+)::|\|[^|\n]+\|[ \t]+[\w-]+::|_[^\n]+:|\[[^\]\n]+\])[ \t]*(.*)$"
)
_RST_COMMENT = re.compile(r"^([ \t]*)\.\.(?:[ \t]+.*)?$")
_RST_OPTION = re.compile(r"^[ \t]+:[\w-]+:.*$")
_RST_ROLE = re.compile(r":[\w:+.-]{1,40}:`~?!?([^`\n]{1,500}?)(?:[ \t]*<[^<>`\n]{1,500}>)?`")
_RST_LINK = re.compile(r"`([^`<>\n]{1,500}?)[ \t]*<[^<>`\n]{1,1000}>`__?")
_RST_KEPT = ("note", "warning", "tip", "important", "caution", "hint", "danger", "attention", "admonition", "seealso")
_RST_KEPT += ("code", "code-block", "sourcecode", "versionadded", "versionchanged", "deprecated", "topic", "epigraph")
_RST_KEPT += ("function", "class", "method", "attribute", "data", "module", "option", "describe", "rubric", "glossary")

_ADOC_ATTRIBUTE = re.compile(r"^:!?[\w-]+!?:.*\n?", re.MULTILINE)
_ADOC_COMMENT = re.compile(r"^////+\n.*?^////+$\n?|^//(?!/)[^\n]*\n?", re.MULTILINE | re.DOTALL)
_ADOC_BLOCK = re.compile(
    r"^(?:\[[^\[\]\n]{0,500}\]|image::.*|include::.*|ifdef::.*|ifndef::.*|endif::.*|toc::.*)[ \t]*\n", re.MULTILINE
)
_ADOC_LINK = re.compile(
    r"(?:link:|xref:|https?://)[^\s\[\]]{1,1000}\[([^\[\]\n]{1,500})\]|<<[^<>,\n]{1,200},[ \t]*([^<>\n]{1,300})>>"
)
_ADOC_IMAGE = re.compile(r"image:[^\s\[\]:][^\s\[\]]{0,500}\[[^\[\]\n]{0,500}\]")
_BLANK_LINES = re.compile(r"\n{3,}")


def markdown(text: str) -> str:
    """Markdown without front matter, HTML comments and wrappers, badges and link targets. Fenced code is untouched."""
    text = _FRONT.sub("", text.replace("\r\n", "\n"), count=1)
    kept = [piece if is_code else _markdown(piece) for piece, is_code in _fenced(text)]
    return _tidy("".join(kept))


def rst(text: str) -> str:
    """reStructuredText without comments, options, targets and roles; of directives only those that show text."""
    kept: list[str] = []
    hidden = -1  # indentation of a directive whose block is left out
    option = False  # whether the options of a directive may still come
    for line in text.replace("\r\n", "\n").expandtabs(8).split("\n"):
        indent = len(line) - len(line.lstrip())
        if hidden >= 0 and (not line.strip() or indent > hidden):
            continue
        hidden = -1
        if option and _RST_OPTION.match(line):
            continue
        option = False
        if found := _RST_DIRECTIVE.match(line):
            if found[2] in _RST_KEPT:
                option = True
                if found[3] and not found[2].startswith(("code", "sourcecode")):
                    kept.append(f"{found[1]}{found[3]}")
            else:
                hidden = indent
        elif _RST_COMMENT.match(line):
            hidden = indent
        else:
            kept.append(_RST_LINK.sub(r"\1", _RST_ROLE.sub(r"\1", line)))
    return _tidy("\n".join(kept))


def asciidoc(text: str) -> str:
    """AsciiDoc without attributes, comments, block marks, pictures and link targets."""
    text = _ADOC_ATTRIBUTE.sub("", _ADOC_COMMENT.sub("", text.replace("\r\n", "\n")))
    text = _ADOC_IMAGE.sub("", _ADOC_BLOCK.sub("", text))
    return _tidy(_ADOC_LINK.sub(lambda found: found[1] or found[2], text))


CLEANERS = {
    ".md": markdown,
    ".markdown": markdown,
    ".mdx": markdown,
    ".rst": rst,
    ".adoc": asciidoc,
    ".asciidoc": asciidoc,
}


def _fenced(text: str) -> list[tuple[str, bool]]:
    """The text cut at its fences; every second piece is code. A fence that is never closed makes code of the rest."""
    bounds = [found.start() for found in _FENCE.finditer(text)]
    pieces: list[tuple[str, bool]] = []
    at = 0
    for number in range(0, len(bounds), 2):
        opening = bounds[number]
        closing = text.find("\n", bounds[number + 1]) if number + 1 < len(bounds) else -1
        end = closing + 1 if closing >= 0 else len(text)
        pieces += [(text[at:opening], False), (text[opening:end], True)]
        at = end
    return [*pieces, (text[at:], False)]


def _markdown(text: str) -> str:
    parts: list[str] = []
    at = 0
    while (start := text.find("<!--", at)) >= 0 and (end := text.find("-->", start)) >= 0:
        parts.append(text[at:start])
        at = end + 3
    text = _MD_IMAGE.sub("", "".join([*parts, text[at:]]))
    text = _MD_TARGET.sub("", _MD_EMPTY.sub("", text))
    return _MD_TAG.sub("", _MD_LINK.sub(r"\1", text))


def _tidy(text: str) -> str:
    return _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n"))).strip("\n")
