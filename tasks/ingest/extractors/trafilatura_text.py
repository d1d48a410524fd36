"""trafilatura without its slow fall-backs, with Swallow Corpus v1's options: no comments, no tables.

Some twenty times dearer than resiliparse. `skip` is applied as it is by the others where a selector is plain (a tag, a
class or an id). Source: swallow-llm/swallow-corpus @ 2d03507 (include_comments=False, include_tables=False);
`fast=True` is ours. Package: trafilatura (Apache-2.0), extra [corpus].
"""

import html as entities
import re

from tasks.ingest.extractors.engine import Engine

_TITLE = re.compile(r"<title[^>]*>(.*?)</title", re.IGNORECASE | re.DOTALL)
_ENCODING = re.compile(r"^\s*<\?xml[^>]*\?>")  # lxml refuses a string that declares an encoding
_PLAIN = re.compile(r"[.#]?[A-Za-z][\w-]*")


def extract(html: str, skip: tuple[str, ...]) -> tuple[str, str]:
    """Text and title of what trafilatura takes for the article."""
    import trafilatura  # lxml and its tables take a second; only this engine needs them

    text = trafilatura.extract(
        _ENCODING.sub("", html),
        fast=True,
        include_comments=False,
        include_tables=False,
        prune_xpath=[_xpath(selector) for selector in skip if _PLAIN.fullmatch(selector)] or None,
    )
    found = _TITLE.search(html)
    return text or "", " ".join(entities.unescape(found[1]).split()) if found else ""


def _xpath(selector: str) -> str:
    name = selector[1:]
    if selector.startswith("."):
        return f"//*[contains(concat(' ', normalize-space(@class), ' '), ' {name} ')]"
    return f"//*[@id='{name}']" if selector.startswith("#") else f"//{selector}"


ENGINE = Engine(extract, "trafilatura", "corpus")
