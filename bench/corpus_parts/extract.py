"""From archive to text: reading and decoding records, and HTML to text, ours against trafilatura.

All engines get the same pages of a web archive, in memory before the clock starts. `extract_vs_trafilatura` is our
default engine over trafilatura with all its defaults; trafilatura as Swallow uses it, and with `fast=True`, stand
beside it. Ours is timed in one process without the child that guards it; `guarded` is the CPU time of child and parent
together. The peers see only every PEERS_STEP-th page, because they are slow.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.corpus_parts.part import Options, Part
from bench.harness import ROOT, alternate, run_json, say

ARCHIVE = ROOT.parent / "shared" / "data" / "html-ja" / "docs-ja.warc.gz"  # development machines have it
PEERS_STEP = 8
PEERS = ("trafilatura", "trafilatura_swallow", "trafilatura_fast")
OURS = ("without_furniture", "resiliparse", "resiliparse_all")
WARM_UP = 5


def run(options: Options) -> Part:
    """MB of HTML per CPU-second of each engine; MB of records per CPU-second of reading and decoding."""
    if not ARCHIVE.exists():
        raise SystemExit(
            f"{ARCHIVE} is absent: this part measures real pages, which the repository does not carry. "
            "Leave the part out with --parts."
        )
    names = (*OURS, "guarded", "read", *PEERS)
    engines = {
        name: lambda name=name: run_json([sys.executable, "-m", "bench.corpus_parts.extract", name]) for name in names
    }
    say(f"{len(names)} engines on {ARCHIVE.name}")
    runs = alternate(engines, options.rounds)
    speeds = {name: [each["megabytes"] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    facts: dict[str, Any] = {
        "mb_per_cpu_s": {name: round(value, 2) for name, value in middle.items()},
        "chars": {name: rounds[0]["chars"] for name, rounds in runs.items()},
        "goals_mb_per_cpu_s": {"read": 40, "without_furniture": 28},
    }
    shown = {"ours": speeds["without_furniture"], **{name: speeds[name] for name in PEERS}}
    return Part(shown, {"extract_vs_trafilatura": round(middle["without_furniture"] / middle["trafilatura"], 2)}, facts)


def measured(engine: str) -> dict[str, Any]:
    """CPU seconds of one engine, the megabytes it got and the characters it gave."""
    from tasks.ingest.decode import decode
    from tasks.ingest.sources.archives import records
    from tasks.ingest.sources.source import Page

    if engine == "read":
        began = time.process_time()
        pages = [page for page in records(ARCHIVE.name, ARCHIVE) if isinstance(page, Page)]
        texts = [decode(page.content, page.content_type) for page in pages]
        size = sum(len(page.content) for page in pages)
        chars = sum(len(text.text) for text in texts if text)
        return {"cpu_s": time.process_time() - began, "megabytes": size / 1e6, "chars": chars}
    pages = [page for page in records(ARCHIVE.name, ARCHIVE) if isinstance(page, Page)]
    if engine in PEERS:
        pages = pages[::PEERS_STEP]
    if engine == "guarded":
        return _guarded(pages)
    extract = _peer(engine) if engine in PEERS else _ours(engine)
    for page in pages[:WARM_UP]:
        extract(page.content, page.content_type)
    began = time.process_time()
    chars = sum(extract(page.content, page.content_type) for page in pages)
    return _report(time.process_time() - began, pages, chars)


def _ours(engine: str) -> Callable[[bytes, str], int]:
    from tasks.ingest.config import CleanConfig
    from tasks.ingest.extract import page_text

    skip = CleanConfig(language="ja").skip_elements
    return lambda content, content_type: len(page_text(content, content_type, skip, engine).text)


def _peer(engine: str) -> Callable[[bytes, str], int]:
    """trafilatura gets text that is decoded already, which costs it nothing."""
    import trafilatura

    from tasks.ingest.decode import decode

    options: dict[str, bool] = {} if engine == "trafilatura" else {"include_comments": False, "include_tables": False}
    if engine == "trafilatura_fast":
        options["fast"] = True

    def chars(content: bytes, content_type: str) -> int:
        decoded = decode(content, content_type)
        return len(trafilatura.extract(decoded.text, **options) or "") if decoded and decoded.text else 0

    return chars


def _guarded(pages: list[Any]) -> dict[str, Any]:
    from tasks.ingest.config import CleanConfig
    from tasks.ingest.extract import Extractor

    with Extractor(60, CleanConfig(language="ja").skip_elements) as extractor:
        for page in pages[:WARM_UP]:
            extractor.extract(page.content, page.content_type)
        assert extractor._child is not None
        before = _cpu_s(extractor._child.pid) + time.process_time()
        chars = sum(len(extractor.extract(page.content, page.content_type).text) for page in pages)
        return _report(_cpu_s(extractor._child.pid) + time.process_time() - before, pages, chars)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _report(cpu_s: float, pages: list[Any], chars: int) -> dict[str, Any]:
    return {"cpu_s": cpu_s, "megabytes": sum(len(page.content) for page in pages) / 1e6, "chars": chars}


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1])))
