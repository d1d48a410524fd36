"""What both resiliparse engines share: a tree whose lone Japanese characters survive, and the text of it."""

import re

from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.html import HTMLTree

# resiliparse 2.0 leaves out a text node of one Japanese character: in `<b>A</b>と<b>B</b>` the particle is lost.
# Such a node gets a second character (a code point that no text has), which is taken out again afterwards.
_MARK = "\ufdd0"
_LONE_CHARACTER = re.compile("(>\\s*)([\u3001-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]|&#x?[0-9a-fA-F]+;)(\\s*<)")


def text_and_title(html: str, skip: tuple[str, ...], *, main_content: bool) -> tuple[str, str]:
    """The text of a page, without the elements that the CSS selectors of `skip` match, and its title."""
    tree = HTMLTree.parse(_LONE_CHARACTER.sub(rf"\1\2{_MARK}\3", html))
    text = extract_plain_text(tree, main_content=main_content, skip_elements=list(skip) or None)
    return text.replace(_MARK, ""), (tree.title or "").replace(_MARK, "").strip()
