"""XML dumps of MediaWiki wikis (`pages-articles.xml.bz2`): the latest text of each article, as plain text.

Prefer `cirrussearch` where the wiki publishes it: there templates are resolved. Only articles (namespace 0) in wikitext
are pages; redirects and all else are rejects.
"""

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import quote

from tasks.ingest.sources import places
from tasks.ingest.sources.compressed import BROKEN, open_stream
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited
from tasks.ingest.sources.wikitext import plain

PATTERNS = tuple(f"*.xml{packed}" for packed in ("", ".bz2", ".gz", ".zst"))
_PICTURE, _CATEGORY = "6", "14"  # keys of the namespaces


@dataclass
class _Site:
    """What the head of a dump says about its wiki."""

    root: str = ""  # https://ja.wikipedia.org/wiki/
    pictures: list[str] = field(default_factory=list)
    categories: list[str] = field(default_factory=list)


def parts(config: SourceConfig) -> list[Part]:
    """One part a file of the dump."""
    return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page an article, in order: its title, a blank line, its text. Memory holds one article."""
    with places.fetched(part.items[0]) as path:
        yield from limited(config, _articles(part.key, path))


def _articles(name: str, path: Path) -> Iterator[Page | Rejected]:
    site = _Site()
    number = 0
    try:
        with open_stream(path) as file:
            stack: list[ET.Element] = []
            for event, element in ET.iterparse(file, events=("start", "end")):
                if event == "start":
                    stack.append(element)
                    continue
                stack.pop()
                tag = _local(element)
                if tag == "siteinfo":
                    _learn(site, element)
                elif tag == "page":
                    number += 1
                    yield _article(site, f"{name}#{number}", element)
                if tag in ("siteinfo", "page") and stack:
                    stack[-1].remove(element)
    except (*BROKEN, ET.ParseError) as error:
        yield Rejected("truncated", f"{name}#{number + 1}", f"{type(error).__name__}: {error}")


def _learn(site: _Site, element: ET.Element) -> None:
    for child in element.iter():
        tag, text = _local(child), child.text or ""
        if tag == "base":
            site.root = text.rpartition("/")[0] + "/"
        elif tag == "namespace" and text:
            names = {_PICTURE: site.pictures, _CATEGORY: site.categories}.get(child.get("key", ""))
            if names is not None:
                names.append(text)


def _article(site: _Site, origin: str, element: ET.Element) -> Page | Rejected:
    found: dict[str, str] = {}
    for child in element.iter():
        found.setdefault(_local(child), child.text or "")  # the first id and title are the page's own
    title = found.get("title", "")
    if found.get("ns", "0") != "0":
        return Rejected("namespace", origin, f"namespace {found['ns']}: {title}")
    if "redirect" in found:
        return Rejected("redirect", origin, title)
    if found.get("model", "wikitext") != "wikitext":
        return Rejected("content_type", origin, f"{found['model']}: {title}")
    text = plain(found.get("text", ""), site.pictures, site.categories)
    if not text:
        return Rejected("empty", origin, title)
    url = (site.root or "wiki:") + quote(title.replace(" ", "_"), safe="/:()',!*")
    return Page(
        url, f"{title}\n\n{text}".encode("utf-8", "replace"), "text/plain; charset=utf-8", found.get("timestamp", "")
    )


def _local(element: ET.Element) -> str:
    return cast(str, element.tag).rpartition("}")[2]


SOURCE = Source(parts, read, lambda config: places.state(config, PATTERNS), declared_notice)
