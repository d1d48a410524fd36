"""What would a filter drop? Shows documents of one shard that a filter rejects, with the reason.

    python examples/filter_one_shard.py                                    # Python files of this interpreter
    python examples/filter_one_shard.py .nestling/store/clean/tiny-ja-*/data/docs/*.parquet --language ja
    python examples/filter_one_shard.py SHARD --language ja --filters japanese --set min_japanese_fraction=0.8

SHARD is a Parquet file with a `text` column (documents), or one of mirrored pages.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tasks.ingest.extract import page_text
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.verdicts import judge
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import Page, SourceConfig
from tasks.ingest.texts import Texts
from tasks.shards import read_batches


def standard_library() -> Iterator[tuple[str, str]]:
    """(url, text) of 200 files of the standard library."""
    config = SourceConfig(
        kind="python_source", name="stdlib", licence="PSF-2.0", attribution="Python Software Foundation", max_pages=200
    )
    source = SOURCES[config.kind]
    for part in source.parts(config):
        for page in source.read(config, part):
            if isinstance(page, Page):
                yield page.url, page_text(page.content, page.content_type).text


def shard(path: str) -> Iterator[tuple[str, str]]:
    """(url, text) of a shard of documents, or of pages after extraction."""
    for batch in read_batches(path):
        for row in batch.to_pylist():
            text = row["text"] if "text" in row else page_text(row["content"], row["content_type"]).text
            yield row["url"], text


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="*", metavar="SHARD")
    parser.add_argument("--language", default="", choices=["", *LANGUAGES], help="default: ja, or python without SHARD")
    parser.add_argument("--filters", default="", help="comma-separated; default: those of the language")
    parser.add_argument("--set", action="append", default=[], metavar="THRESHOLD=VALUE", help="change a threshold")
    parser.add_argument("--show", type=int, default=10, help="rejected documents to print")
    options = parser.parse_args(arguments)
    pack = LANGUAGES[options.language or ("ja" if options.shards else "python")]
    changes = dict(item.split("=", 1) for item in options.set)
    rules = {name: pack.filters.get(name) or FILTERS[name].rules() for name in options.filters.split(",") if name}
    rules = rules or dict(pack.filters)
    for name, thresholds in rules.items():
        own = {key: value for key, value in changes.items() if key in type(thresholds).model_fields}
        rules[name] = thresholds.with_changes(own)
    reasons: Counter[str] = Counter()
    rows = (row for path in options.shards for row in shard(path)) if options.shards else standard_library()
    for url, raw in rows:
        text = pack.normalise(raw)
        reason = judge(Texts([text]), rules).reasons[0] or "kept"
        reasons[reason] += 1
        if reason != "kept" and reasons.total() - reasons["kept"] <= options.show:
            print(f"{reason:20} {len(text):7,} chars  {url}\n{'':20} {' '.join(text.split())[:200]}")
    print("\n" + "\n".join(f"{count:7,}  {reason}" for reason, count in reasons.most_common()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
