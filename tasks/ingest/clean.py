"""Raw pages to clean documents of one language: decode, extract, normalise, identify, judge; each drop has a reason."""

import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from tasks.artifact import Artifact, Counts, Stage, Unit, Workspace
from tasks.errors import DataFault, HostFault
from tasks.ingest.config import CleanConfig
from tasks.ingest.extract import Extractor, die_with
from tasks.ingest.filters import verdicts
from tasks.ingest.language import identify
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.languages.pack import without_foreign_lines
from tasks.ingest.texts import Texts
from tasks.progress import track
from tasks.records import DOCUMENT, document_id, meta_json, table
from tasks.shards import read_batches

_extractor: Extractor | None = None
Verdict = tuple[dict[str, Any] | None, str, str]  # (document, "", "") or (None, reason, what is kept of the text)


def run(workspace: Workspace, config: CleanConfig, inputs: dict[str, Artifact]) -> None:
    """Write docs/*.parquet, one for each shard of pages, by `workers` processes. Their number changes nothing.

    Raises:
        DataFault: not one page is kept.
        HostFault: a worker was killed.
    """
    clean_shards(workspace, config, inputs["pages"])
    counts = sum((record.counts for record in workspace.units()), Counts())
    if counts.in_ and not counts.out:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in Counter(counts.dropped).most_common(6))
        raise DataFault(
            f"clean {workspace.name}: none of {counts.in_:,} pages is kept ({reasons}): an empty corpus would be taken "
            f"for a finished one. Look at the rows in {workspace.url}/rejects, then correct the source or its "
            "language, or loosen the filter that drops them."
        )


def clean_shards(workspace: Workspace, config: CleanConfig, pages: Artifact) -> None:
    """Every shard that is not done yet."""
    shards = {entry.path: entry.rows or 0 for entry in pages.files("pages/")}
    todo = [path for path in shards if workspace.unit_record(path) is None]
    todo.sort(key=lambda path: -shards[path])  # the long ones first, so that the workers end together
    workers = min(config.workers or os.cpu_count() or 1, len(todo))
    with track(f"clean {workspace.name}", sum(shards.values()), "pages") as bar:
        bar.resume(sum(rows for path, rows in shards.items() if path not in todo))
        if workers <= 1:
            with extractor_of(config) as extractor:
                for path in todo:
                    clean_shard(workspace, config, pages.file_url(path), path, extractor)
                    bar.advance(shards[path])
            return
        with _pool(workers) as pool:
            running = {pool.submit(_in_worker, workspace, config, pages.file_url(path), path): path for path in todo}
            try:
                for done in as_completed(running):
                    done.result()
                    bar.advance(shards[running[done]])
            except BrokenProcessPool as error:
                raise HostFault(
                    f"a worker of clean {workspace.name} was killed ({workers} workers): usually memory ran out. "
                    "Finished shards are kept. Set workers or the shard_bytes of the mirror lower, and run again."
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def extractor_of(config: CleanConfig) -> Extractor:
    """The extractor that a config asks for; not yet started."""
    return Extractor(config.extract_timeout_s, config.skip_elements, config.main_content)


def clean_shard(workspace: Workspace, config: CleanConfig, url: str, path: str, extractor: Extractor) -> None:
    """One shard of pages to one shard of documents: a unit of work. Memory holds the documents and 1,024 pages."""
    documents: list[dict[str, Any]] = []
    with workspace.unit(path) as unit:
        for page in _rows(url):
            unit.count(rows_in=1)
            document, reason, kept = clean_page(page, config, extractor)
            if document is None:
                _drop(unit, page, reason, kept)
            else:
                documents.append(document)
        unit.count(rows_out=len(documents))
        unit.write_parquet(f"docs/{path.removeprefix('pages/')}", table(documents, DOCUMENT))


def clean_page(page: dict[str, Any], config: CleanConfig, extractor: Extractor) -> Verdict:
    """The document of a page, or the first reason why there is none. Pure but for the extractor's time limit."""
    pack = LANGUAGES[config.language]
    hint = page["language_hint"]
    if hint and hint != pack.code:
        return None, f"language:{hint}", ""
    if page["content_type"].split(";")[0].strip().lower() not in pack.content_types:
        return None, "content_type", page["content_type"]
    found = extractor.extract(page["content"], page["content_type"])
    if found.reason:
        return None, found.reason, found.detail
    raw = pack.normalise(found.text)
    if not raw.strip():
        return None, "empty", ""
    if reason := _other_language(raw, config, pack.label):
        return None, reason, raw
    kept = raw
    if pack.native and config.min_foreign_words:
        kept = without_foreign_lines(raw, pack.native, config.min_foreign_words)
    if reason := judge(kept, config):
        return None, reason, kept
    cut = {"cut_chars": len(raw) - len(kept)} if len(kept) < len(raw) else {}
    facts = {"encoding": found.encoding, "title": pack.normalise(found.title)}
    return _document(page, config, kept, facts | cut), "", ""


def judge(text: str, config: CleanConfig) -> str | None:
    """The first reason of the filters to drop a text, or None to keep it."""
    return verdicts.judge(Texts([text]), config.applied()).reasons[0]


def _other_language(text: str, config: CleanConfig, label: str) -> str | None:
    if not label:
        return None
    found = identify(text, min_kana_fraction=config.min_kana_fraction, min_probability=config.min_language_probability)
    return None if found == label else f"language:{found}"


def _document(page: dict[str, Any], config: CleanConfig, text: str, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": document_id(page["source"], page["url"], text),
        "text": text,
        "url": page["url"],
        "source": page["source"],
        "language": config.language,
        "licence": page["licence"],
        "crawl_time": page["crawl_time"],
        "meta": meta_json(**{name: value for name, value in facts.items() if value}),
    }


def _drop(unit: Unit, page: dict[str, Any], reason: str, kept: str) -> None:
    unit.drop(reason, {"id": page["id"], "url": page["url"], "source": page["source"], "text": kept})


def _rows(url: str) -> Iterator[dict[str, Any]]:
    for batch in read_batches(url):
        for index in range(batch.num_rows):
            yield {name: column[index].as_py() for name, column in zip(batch.schema.names, batch.columns, strict=True)}


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
    return ProcessPoolExecutor(workers, context, initializer=_be_a_worker, initargs=(os.getpid(),))


def _in_worker(workspace: Workspace, config: CleanConfig, url: str, path: str) -> None:
    global _extractor  # one for the life of the worker process; it ends with it
    _extractor = _extractor or extractor_of(config)
    clean_shard(workspace, config, url, path, _extractor)


def _be_a_worker(parent: int) -> None:
    die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process


CLEAN = Stage(
    name="clean",
    version="1",
    run=run,
    code=(
        "tasks.ingest.clean",
        "tasks.ingest.decode",
        "tasks.ingest.extract",
        "tasks.ingest.filters",
        "tasks.ingest.language",
        "tasks.ingest.languages",
        "tasks.ingest.texts",
        "tasks.records",
        "tasks.shards",
    ),
)
