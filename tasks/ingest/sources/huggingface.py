"""The Parquet and JSON-lines files of a dataset repository of the Hugging Face hub, at one commit.

They are mirrored once; no later stage asks the hub. `location` is OWNER/NAME, `include` chooses files
(`("data/ja/*.parquet",)`), and `revision` is the commit: a branch moves, and would be another corpus tomorrow.
"""

import re
from collections.abc import Iterator

from tasks.ingest.sources import places, rows
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited

PATTERNS = (*rows.PARQUET, *rows.JSONL)
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def parts(config: SourceConfig) -> list[Part]:
    """One part a file of the repository.

    Raises:
        ValueError: no repository, no commit, or no file that matches.
    """
    found = _at_hub(config)
    return [Part(places.key_of(found, url), (url,)) for url in places.files(found, PATTERNS)]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a row of a file, in order."""
    with places.fetched(part.items[0]) as path:
        yield from limited(config, rows.pages(config, part.key, path))


def _at_hub(config: SourceConfig) -> SourceConfig:
    """The source with the full URL of its repository; a location that is a URL (a copy of one) stays as it is."""
    if "://" in config.location:
        return config
    if not _REPOSITORY.fullmatch(config.location):
        raise ValueError(
            f"source {config.name!r}: location={config.location!r} is not OWNER/NAME of a dataset: that is how the hub "
            "names repositories. Correct the location, or give the URL of a copy."
        )
    if not _COMMIT.fullmatch(config.revision):
        raise ValueError(
            f"source {config.name!r}: revision={config.revision!r} is not a commit (40 hexadecimal digits): a branch "
            "or tag can move, and the corpus would not be the same again. Set revision to the commit that the hub "
            "shows under 'Files and versions'."
        )
    return config.with_changes({"location": f"hf://datasets/{config.location}@{config.revision}"})


SOURCE = Source(parts, read, lambda config: places.state(_at_hub(config), PATTERNS), declared_notice)
