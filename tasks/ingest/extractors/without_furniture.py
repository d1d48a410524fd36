"""Everything a reader sees but the furniture: elements that say what they are, and runs of links. The default.

Main-content rules of other engines lose short list items, tables and code, of which manuals and technical pages are
full. Here only what is surely no text goes: elements whose tag, role, class or id names a menu, a side bar or a footer
(the names are those that Readability, Sphinx, DocBook, MediaWiki, WordPress and Japanese site builders use), and links
that follow each other with nothing between them. Rests of furniture are left to the filters. Measured on the gold
pages: tests/tasks/ingest/test_gold.py.
"""

import re

from tasks.ingest.extractors.engine import Engine
from tasks.ingest.extractors.tree import text_and_title

MIN_RUN = 5  # links in a row that are a menu, not a sentence
MAX_LINK_CHARS = 60  # of a link in a menu, on average
SELECTORS = (
    *("nav", "footer", "aside", "form", "button", "select", "textarea", "dialog", "noscript", "script", "style"),
    "body > header",
)
ROLES = frozenset({"navigation", "banner", "contentinfo", "search", "menu", "menubar"})
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
# An id counts on these only: on a heading or an anchor it is a place to jump to.
_BOXES = ("div", "ul", "ol", "dl", "section", "table", "td", "p")
_NOT_BOXES = ":not(html):not(body):not(main):not(article)"
_ROLE = re.compile(r"role=[\"']?(\w+)")
_GAP = (
    r"(?:[\s|｜/／»›>＞·•\-–—:\[]|&(?:nbsp|gt|raquo|middot|bull|ndash|#\d{1,5});|"
    r"<(?!(?i:h[1-6]|pre|p|article|main|td|/?a)[\s>])[^<>]{0,500}+>){0,200}+"
)


def _patterns(a: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """A run of links, and one link. Between two links of a menu are marks, and tags that begin no heading, paragraph,
    code or table cell. Every repetition is possessive, so that a failure costs no more than the search did."""
    link = rf"<{a}(?=[\s>])[^<>]*+>[^<]*+(?:<(?!/?{a}[\s>])[^<>]*+>[^<]*+){{0,30}}+</{a}\s*+>"
    return re.compile(rf"{link}(?:{_GAP}{link}){{{MIN_RUN - 1},}}+"), re.compile(link)


_SMALL, _ANY = _patterns("a"), _patterns("[aA]")  # a literal is searched for faster
_TAG = re.compile(r"<[^<>]*>")


def extract(html: str, skip: tuple[str, ...]) -> tuple[str, str]:
    """All text and the title of the page, without furniture and what `skip` matches."""
    return text_and_title(without_link_runs(html), (*SELECTORS, *named(html), *skip), main_content=False)


def named(html: str) -> list[str]:
    """Selectors of the classes, ids and roles of this page that name furniture: few, and each costs some time."""
    classes = {name for names in set(_CLASS.findall(html)) for name in names.split() if NAMES.fullmatch(name)}
    ids = {name for name in _ID.findall(html) if NAMES.fullmatch(name)}
    boxes = (f"{box}#{name}" for name in sorted(ids) for box in _BOXES)
    roles = (f"[role={role}]" for role in sorted(ROLES.intersection(_ROLE.findall(html))))
    return [*(f".{name}{_NOT_BOXES}" for name in sorted(classes)), *boxes, *roles]


def without_link_runs(html: str) -> str:
    """The page without links that follow each other, MIN_RUN or more, with nothing but marks and tags between them."""
    run, link = _ANY if "<A" in html else _SMALL
    return run.sub(lambda found: link.sub("", found[0]) if _is_menu(found[0]) else found[0], html)


def _is_menu(run: str) -> bool:
    """Whether the links are short: a row of long titles is a list of things to read."""
    words = " ".join(_TAG.sub(" ", run).split())
    return len(words) <= MAX_LINK_CHARS * (run.count("</a") + run.count("</A"))


ENGINE = Engine(extract, "resiliparse")
