"""Web archives (WARC, ARC), plain or packed, local or remote: the HTML and text responses.

`location` is a directory, a file, or a list of paths as Common Crawl publishes it (`warc.paths.gz`), whose lines are
read below `base_url`. A damaged file is read to its last good record.
"""

from collections.abc import Iterator
from typing import Any

from tasks.ingest.sources import places
from tasks.ingest.sources.archives import records
from tasks.ingest.sources.compressed import open_stream
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, declared_notice, limited
from tasks.storage import is_local, join

_PACKED = ("", ".gz", ".zst")
PATTERNS = tuple(f"*.{kind}{packed}" for kind in ("warc", "arc") for packed in _PACKED)
LISTS = (".paths", ".paths.gz")


def parts(config: SourceConfig) -> list[Part]:
    """One part a file. A list of paths must be there when a run is planned; the files it names are read later.

    Raises:
        ValueError: there is no archive, or no revision says in which state a remote one is.
    """
    if not config.location.endswith(LISTS):
        return [Part(places.key_of(config, url), (url,)) for url in places.files(config, PATTERNS)]
    if not is_local(config.base_url):
        places.needs_revision(config)
    [url] = places.files(config, LISTS)
    with places.fetched(url) as path, open_stream(path) as lines:
        names = [name for line in lines if (name := line.decode("utf-8", "replace").strip())]
    if not names:
        raise ValueError(
            f"source {config.name!r}: {config.location!r} names no file: a source without pages would give an empty "
            "corpus. Give a list with one path a line, or remove the source."
        )
    return [Part(name, (name if "://" in name else join(config.base_url, name),)) for name in names]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """One page a response with status 200 and a type of CONTENT_TYPES; all else that was answered is a reject.

    Raises:
        HostFault: a remote file cannot be fetched.
        DataFault: a file of the list is not there.
    """
    with places.fetched(part.items[0]) as path:
        yield from limited(config, records(part.key, path))


def state(config: SourceConfig) -> dict[str, Any]:
    """What the archives hold; of a list, what it holds and where its files are."""
    found = places.state(config, (*PATTERNS, *(f"*{suffix}" for suffix in LISTS)))
    return found | ({"base_url": config.base_url} if config.location.endswith(LISTS) else {})


SOURCE = Source(parts, read, state, declared_notice)
