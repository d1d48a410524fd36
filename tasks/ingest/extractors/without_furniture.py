"""Everything a reader sees but the furniture: elements that say what they are, and runs of links. The default.

Main-content rules of other engines lose short list items, tables and code, of which manuals and technical pages are
full. Here only what is surely no text goes: elements whose tag, role, class or id names a menu, a side bar or a footer
(the names are those that Readability, Sphinx, DocBook, MediaWiki, WordPress and Japanese site builders use), and links
that follow each other with nothing between them. Rests of furniture are left to the filters. Measured on the gold
pages: tests/tasks/ingest/test_gold.py.
"""

import html as entities
import re

from tasks.ingest.extractors.engine import Engine
from tasks.ingest.extractors.tree import text_and_title

MIN_RUN = 5  # links in a row that are a menu, not a sentence
MAX_LINK_CHARS = 60  # of a link in a menu, on average
SELECTORS = (
    *("nav", "footer", "aside", "form", "button", "select", "textarea", "dialog", "noscript", "script", "style"),
    *("body > header", "[role=navigation]", "[role=banner]", "[role=contentinfo]", "[role=search]", "[role=menu]"),
)
# Whole names of classes and ids.
NAMES = re.compile(
    "nav|navi|gnav|navbar|navigation|menu|menubar|menu-bar|submenu|sidebar|side-bar|sidenav|sphinxsidebar|breadcrumbs?|"
    "topicpath|pankuzu|navpath|footer|navfooter|navheader|masthead|pager|pagination|pagenavi|toc|table-of-contents|"
    "toctree-wrapper|related-posts|share|sharing|social|sns|share-buttons|cookie-banner|cookie-notice|advertisement|"
    "adsense|adsbygoogle|sponsor|popup|theme-popup|modal|searchbox|search-form|searchform|skip-link|skiplink|newsletter|"
    "headerlink|printfooter|catlinks|mw-editsection|mw-jump-link|noprint",
    re.IGNORECASE,
)
_CLASS = re.compile(r"class=[\"']?([^\"'<>]{1,300})")  # lower case, as nearly all write it: faster
_ID = re.compile(r"id=[\"']?([^\"'<>]{1,100})")
_BOXES = (
    "div",
    "ul",
    "ol",
    "dl",
    "section",
    "table",
    "td",
    "p",
)  # an id on a heading or an anchor is a place to jump to
_NOT_BOXES = ":not(html):not(body):not(main):not(article)"
_LINK = re.compile(r"<(/?)a(?=[\s>])[^<>]*>", re.IGNORECASE)
_TAG = re.compile(r"<[^<>]*>|<!--.*?-->", re.DOTALL)
_SEPARATORS = " \t\r\n\u00a0\u3000|｜/／»›>＞·•-–—:["
_ENDS_RUN = re.compile(r"<(?:h[1-6]|pre|p|article|main|td)\b", re.IGNORECASE)


def extract(html: str, skip: tuple[str, ...]) -> tuple[str, str]:
    """All text and the title of the page, without furniture and what `skip` matches."""
    return text_and_title(without_link_runs(html), (*SELECTORS, *named(html), *skip), main_content=False)


def named(html: str) -> list[str]:
    """Selectors of the classes and ids of this page that name furniture. Few: each costs a walk through the tree."""
    classes = {name for names in set(_CLASS.findall(html)) for name in names.split() if NAMES.fullmatch(name)}
    ids = {name for name in _ID.findall(html) if NAMES.fullmatch(name)}
    boxes = (f"{box}#{name}" for name in sorted(ids) for box in _BOXES)
    return [*(f".{name}{_NOT_BOXES}" for name in sorted(classes)), *boxes]


def without_link_runs(html: str) -> str:
    """The page without links that follow each other, MIN_RUN or more, with nothing but marks and tags between them."""
    runs: list[list[tuple[int, int]]] = [[]]
    opened = last = -1
    for found in _LINK.finditer(html):
        if not found[1]:
            opened = found.start()
        elif opened >= 0:
            if runs[-1] and not _follows(html[last:opened]):
                runs.append([])
            runs[-1].append((opened, found.end()))
            opened, last = -1, found.end()
    parts: list[str] = []
    at = 0
    for start, end in (link for run in runs if len(run) >= MIN_RUN and _is_menu(html, run) for link in run):
        parts.append(html[at:start])
        at = end
    return "".join([*parts, html[at:]]) if parts else html


def _follows(between: str) -> bool:
    """Whether there is nothing to read between two links, and no new paragraph, heading or table cell begins."""
    if len(between) > 1000 or _ENDS_RUN.search(between):
        return False
    text = _TAG.sub("", between)
    return not (entities.unescape(text) if "&" in text else text).strip(_SEPARATORS)


def _is_menu(html: str, run: list[tuple[int, int]]) -> bool:
    """Whether most links have words, and few of them each: pictures in a row, or long titles, are no menu."""
    texts = [" ".join(_TAG.sub("", html[start:end]).split()) for start, end in run]
    shown = [len(text) for text in texts if text]
    return len(shown) >= MIN_RUN and sum(shown) <= MAX_LINK_CHARS * len(shown)


ENGINE = Engine(extract, "resiliparse")
