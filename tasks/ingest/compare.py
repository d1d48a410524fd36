"""`python -m tasks.ingest.compare SOURCE`: the extraction engines on the same pages, as one HTML page.

SOURCE is a web archive or a directory of HTML. The page loads nothing and runs nothing; the text on it is whatever the
web says, made harmless to the eye.
"""

import argparse
import html as entities
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import NestlingError
from tasks.ingest.config import CleanConfig
from tasks.ingest.decode import decode
from tasks.ingest.extract import Extracted, Extractor
from tasks.ingest.extractors import DEFAULT, EXTRACTORS
from tasks.ingest.extractors.without_furniture import without_link_runs
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import Page, SourceConfig
from tasks.page import content_security_policy, environment, style

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_PAGES = 12  # side by side; those on which the engines differ most
SAMPLE_CHARS = 4000
MIN_LINE_CHARS = 4
_TAG = re.compile(r"<[^<>]*>")


@dataclass(frozen=True)
class Found:
    """What one engine made of one page."""

    text: str
    reason: str
    seconds: float
    furniture: float  # share of its characters that stand in runs of links


@dataclass(frozen=True)
class Row:
    """One page and what each engine made of it."""

    url: str
    size: int
    found: dict[str, Found]

    @property
    def spread(self) -> int:
        """Characters between the longest and the shortest text."""
        lengths = [len(each.text) for each in self.found.values()]
        return max(lengths) - min(lengths)


@dataclass(frozen=True)
class Engine:
    """One engine over all pages."""

    name: str
    chars: int
    empty: int
    failed: int
    furniture: float
    seconds: float
    megabytes_per_s: float
    agreement: float  # share of the default's lines that are in this engine's text too


def compare(pages: Sequence[Page], engines: Sequence[str], config: CleanConfig) -> list[Row]:
    """Every page through every engine, each in a child of its own with the limits of `config`."""
    extractors = {
        name: Extractor(config.extract_timeout_s, config.skip_elements if name == DEFAULT else (), name)
        for name in engines
    }
    try:
        for extractor in extractors.values():
            extractor.extract(b"<p>warm</p>", "text/html")
        return [
            Row(page.url, len(page.content), {name: _found(extractors[name], page) for name in engines})
            for page in pages
        ]
    finally:
        for extractor in extractors.values():
            extractor.__exit__()


def summary(rows: Sequence[Row], engines: Sequence[str]) -> list[Engine]:
    """The figures of each engine."""
    size = sum(row.size for row in rows) / 1e6
    return [
        _engine(name, [row.found[name] for row in rows], [row.found[engines[0]] for row in rows], size)
        for name in engines
    ]


def render(rows: Sequence[Row], engines: Sequence[str], title: str) -> str:
    """The page. Nothing but the seconds on it differs between two runs."""
    sheet = style()
    shown = sorted(rows, key=lambda row: (-row.spread, row.url))[:SHOWN_PAGES]
    return (
        environment(TEMPLATES)
        .get_template("compare.html.jinja")
        .render(
            title=title,
            style=sheet,
            policy=content_security_policy(sheet),
            engines=summary(rows, engines),
            rows=rows,
            shown=shown,
            sample_chars=SAMPLE_CHARS,
        )
    )


def pages_of(place: Path, max_pages: int) -> list[Page]:
    """The HTML pages of an archive or a directory, the first `max_pages` of them."""
    kind = "html" if place.is_dir() or place.suffix in (".html", ".htm") else "warc"
    # Nothing is kept of these pages but the report, which its maker reads.
    source = SourceConfig(
        kind=kind, name="compared", licence="LicenseRef-own", attribution="not passed on", location=str(place)
    )
    found: list[Page] = []
    for part in SOURCES[kind].parts(source):
        for item in SOURCES[kind].read(source, part):
            if isinstance(item, Page) and item.content_type.lower().startswith(("text/html", "application/xhtml")):
                found.append(item)
                if len(found) == max_pages:
                    return found
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the options, compare, write the page; 0 when it is there."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.ingest.compare",
        description="Compare the extraction engines on the same pages; writes one HTML page.",
        epilog="example: python -m tasks.ingest.compare crawl.warc.gz --out compare.html",
    )
    parser.add_argument("source", type=Path, help="a web archive (.warc, .arc, packed or not) or a directory of HTML")
    parser.add_argument("--out", type=Path, default=Path("compare.html"), help="the page to write (compare.html)")
    parser.add_argument("--engines", nargs="+", choices=list(EXTRACTORS), default=list(EXTRACTORS))
    parser.add_argument("--pages", type=int, default=200, help="how many pages at most (200)")
    parser.add_argument("--timeout-s", type=float, default=20, help="seconds an engine may take for a page (20)")
    chosen = parser.parse_args(arguments)
    try:
        pages = pages_of(chosen.source, chosen.pages)
        if not pages:
            raise ValueError(f"{chosen.source} holds no HTML page: there is nothing to compare. Name another source.")
        rows = compare(pages, chosen.engines, CleanConfig(language="ja", extract_timeout_s=chosen.timeout_s))
    except (NestlingError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 78
    chosen.out.write_text(render(rows, chosen.engines, chosen.source.name), encoding="utf-8")
    print(f"{len(rows)} pages through {', '.join(chosen.engines)}: {chosen.out}")
    return 0


def _found(extractor: Extractor, page: Page) -> Found:
    began = time.perf_counter()
    found: Extracted = extractor.extract(page.content, page.content_type)
    seconds = time.perf_counter() - began
    return Found(found.text, found.reason, seconds, _furniture(page, found.text))


def _furniture(page: Page, text: str) -> float:
    """The share of a text's characters that are lines of menus: they stand in the page's runs of links, and only there.

    It is measured by the same rule that the default engine cuts by, so of that engine it only shows what its names did
    not catch; the gold of tests/tasks/ingest is the judge between engines.
    """
    decoded = decode(page.content, page.content_type)
    if decoded is None or not text:
        return 0.0
    rest = set(_lines(_TAG.sub("\n", without_link_runs(decoded.text))))
    menus = set(_lines(_TAG.sub("\n", decoded.text))) - rest
    lines = list(_lines(text))
    return sum(len(line) for line in lines if line in menus) / max(1, sum(map(len, lines)))


def _lines(text: str) -> Iterator[str]:
    for line in entities.unescape(text).split("\n"):
        bare = " ".join(line.split()).lstrip("•-* ")
        if len(bare) >= MIN_LINE_CHARS:
            yield bare


def _engine(name: str, found: Sequence[Found], reference: Sequence[Found], megabytes: float) -> Engine:
    chars = sum(len(each.text) for each in found)
    shared = total = 0
    for each, other in zip(found, reference, strict=True):
        lines, wanted = set(_lines(each.text)), set(_lines(other.text))
        shared, total = shared + len(lines & wanted), total + len(wanted)
    seconds = sum(each.seconds for each in found)
    return Engine(
        name=name,
        chars=chars,
        empty=sum(not each.text.strip() and not each.reason for each in found),
        failed=sum(bool(each.reason) for each in found),
        furniture=sum(each.furniture * len(each.text) for each in found) / max(1, chars),
        seconds=seconds,
        megabytes_per_s=megabytes / max(seconds, 1e-9),
        agreement=shared / max(1, total),
    )


if __name__ == "__main__":
    sys.exit(main())
