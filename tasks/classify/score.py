"""Documents to scores: a sidecar row for every document, and a histogram of each group. No text is written again."""

import contextlib
import re
from collections.abc import Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact, Stage, Unit, Workspace, open_artifact
from tasks.classify.config import ScoreConfig
from tasks.classify.histogram import as_json, count_bins, merged
from tasks.classify.labels.examples import document_shards
from tasks.classify.model import Classifier, open_classifier
from tasks.classify.text import to_line
from tasks.shard_workers import ShardJob, Work, Workers, each_shard, require_every_row
from tasks.shards import ShardWriter, read_batches
from tasks.storage import join

HISTOGRAMS = "histograms.json"
UNKNOWN = "unknown"
_SNAPSHOT = re.compile(r'"snapshot": "([^"\\]+)"')  # of meta_json; quotes inside a title are escaped
SCORES = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("score", pa.float64(), nullable=False),
    ]
)
READ = ["id", "text", "source", "crawl_time", "meta"]


def score(workspace: Workspace, config: ScoreConfig, inputs: dict[str, Artifact]) -> None:
    """Write `annotations/NAME.parquet` (SCORES), one for each shard and in its order, and `histograms.json`.

    One unit a shard, by `workers`. Neither their number nor their kind changes anything.

    Raises:
        HostFault: a worker was killed.
    """
    documents, classifier = inputs["documents"], inputs["classifier"]
    highest = open_classifier(classifier).highest
    paths = document_shards(documents)
    workspace.expect_units(len(paths) + 1)
    job = ShardJob(
        label=f"score {workspace.name}",
        shards={path: documents.entry(path).rows or 0 for path in paths},
        open_work=partial(open_scorer, workspace, config, documents.url, classifier.url),
        rows="documents",
    )
    each_shard(workspace, job, Workers(config.workers, config.runner, config.shared_disk))
    require_every_row(job.label, sum(job.shards.values()), workspace.units())
    if workspace.unit_record("histograms") is None:
        found = merged(r.facts["histograms"] for r in workspace.units() if "histograms" in r.facts)
        with workspace.unit("histograms") as unit:
            unit.write_json(HISTOGRAMS, {"group_by": config.group_by, "highest": highest, "groups": as_json(found)})


@contextlib.contextmanager
def open_scorer(workspace: Workspace, config: ScoreConfig, documents: str, classifier: str) -> Iterator[Work]:
    """In a worker: a function that scores one shard, with a model that is loaded once."""
    model = open_classifier(open_artifact(classifier))

    def work(path: str) -> None:
        with workspace.unit(path) as unit:
            score_shard(unit, join(documents, "data", path), model, config.group_by)

    yield work


def score_shard(unit: Unit, url: str, model: Classifier, group_by: str) -> None:
    """One shard. Memory holds a batch of its texts, a row group of scores and the histograms."""
    histograms: dict[str, np.ndarray] = {}
    target = sidecar(unit.key)
    with ShardWriter(unit.open(target), SCORES) as writer:
        for batch in read_batches(url, READ):
            scores = model.scores(model.probabilities([to_line(text) for text in batch["text"].to_pylist()]))
            groups = group_names(batch, group_by)
            count_bins(histograms, scores, groups, model.highest)
            writer.write(pa.Table.from_arrays([batch["id"], pa.array(groups, pa.string()), scores], schema=SCORES))
            unit.count(rows_in=batch.num_rows)
    unit.set_rows(target, writer.rows)
    unit.count(rows_out=writer.rows)
    unit.note(histograms=as_json(histograms))


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
