"""Documents to scores: a sidecar row for every document, and a histogram of each group. No text is written again."""

import ctypes
import multiprocessing
import os
import re
import signal
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact, Stage, Workspace
from tasks.classify.config import ScoreConfig
from tasks.classify.histogram import as_json, count_bins, merged
from tasks.classify.labels.examples import document_shards
from tasks.classify.model import Classifier, open_classifier
from tasks.classify.text import to_line
from tasks.errors import HostFault
from tasks.progress import track
from tasks.shards import read_batches

HISTOGRAMS = "histograms.json"
UNKNOWN = "unknown"
_PR_SET_PDEATHSIG = 1
_SNAPSHOT = re.compile(r'"snapshot": "([^"\\]+)"')  # of meta_json; quotes inside a title are escaped
SCORES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
READ = ["id", "text", "source", "crawl_time", "meta"]

_classifier: Classifier | None = None  # of a worker process, loaded once


def score(workspace: Workspace, config: ScoreConfig, inputs: dict[str, Artifact]) -> None:
    """Write `annotations/NAME.parquet` (SCORES), one for each shard and in its order, and `histograms.json`.

    One unit a shard, by `workers` processes. Their number changes nothing.

    Raises:
        HostFault: a worker was killed.
    """
    documents, classifier = inputs["documents"], open_classifier(inputs["classifier"])
    paths = document_shards(documents)
    todo = [path for path in paths if workspace.unit_record(path) is None]
    workspace.expect_units(len(paths) + 1)
    with track(f"score {workspace.name}", len(paths), unit="shards") as bar:
        bar.resume(len(paths) - len(todo))
        workers = min(config.workers or os.cpu_count() or 1, len(todo))
        if workers <= 1:
            for path in todo:
                score_shard(workspace, classifier, documents.file_url(path), path, config)
                bar.advance(1)
        else:
            spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads can hang
            with ProcessPoolExecutor(
                workers, spawn, _be_a_worker, (os.getpid(), classifier.path, classifier.marks)
            ) as pool:
                running = [pool.submit(_in_worker, workspace, documents.file_url(path), path, config) for path in todo]
                try:
                    for done in as_completed(running):
                        done.result()
                        bar.advance(1)
                except BrokenProcessPool as error:
                    raise HostFault(
                        f"a worker of score {workspace.name} was killed ({workers} workers): usually memory ran out, "
                        "each holds the model. Finished shards are kept. Set workers lower, and run again."
                    ) from error
                finally:
                    pool.shutdown(wait=False, cancel_futures=True)
    _write_histograms(workspace, config, classifier)


def score_shard(workspace: Workspace, classifier: Classifier, url: str, path: str, config: ScoreConfig) -> None:
    """One shard: a unit of work. Memory holds its scores and a batch of its texts."""
    ids: list[str] = []
    groups: list[str] = []
    scores: list[np.ndarray] = []
    with workspace.unit(path) as unit:
        for batch in read_batches(url, READ):
            lines = [to_line(text) for text in batch["text"].to_pylist()]
            scores.append(classifier.scores(classifier.probabilities(lines)))
            ids += batch["id"].to_pylist()
            groups += group_names(batch, config.group_by)
        every = np.concatenate(scores) if scores else np.empty(0)
        unit.count(rows_in=len(ids), rows_out=len(ids))
        table = pa.Table.from_arrays([pa.array(ids, pa.string()), pa.array(groups, pa.string()), every], schema=SCORES)
        unit.write_parquet(sidecar(path), table)
        unit.note(histograms=count_bins(every, groups, classifier.highest))


def sidecar(path: str) -> str:
    """Where the scores of a shard are: annotations/ and the shard's name."""
    return f"annotations/{path.partition('/')[2]}"


def group_names(batch: pa.RecordBatch, group_by: str) -> list[str]:
    """The group of each document: its source, or its crawl: `meta`'s snapshot, else the month, else `unknown`."""
    if group_by == "source":
        return batch["source"].to_pylist()
    named = (_SNAPSHOT.search(meta) for meta in batch["meta"].to_pylist())
    times = batch["crawl_time"].to_pylist()
    return [(found[1] if found else time[:7]) or UNKNOWN for found, time in zip(named, times, strict=True)]


def _write_histograms(workspace: Workspace, config: ScoreConfig, classifier: Classifier) -> None:
    if workspace.unit_record("histograms") is not None:
        return
    found = merged(r.facts["histograms"] for r in workspace.units() if "histograms" in r.facts)
    with workspace.unit("histograms") as unit:
        facts = {"group_by": config.group_by, "highest": classifier.highest, "groups": as_json(found)}
        unit.write_json(HISTOGRAMS, facts)


def _in_worker(workspace: Workspace, url: str, path: str, config: ScoreConfig) -> None:
    assert _classifier is not None
    score_shard(workspace, _classifier, url, path, config)


def _be_a_worker(parent: int, path: Path, marks: tuple[int, ...]) -> None:
    global _classifier
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and with it this process
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(0)
    _classifier = Classifier(path, marks)


SCORE = Stage(
    name="score",
    version="1",
    run=score,
    code=(
        "tasks.classify.histogram",
        "tasks.classify.model",
        "tasks.classify.score",
        "tasks.classify.text",
        "tasks.shards",
    ),
)
