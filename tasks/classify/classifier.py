"""Examples to a classifier: fastText trained in an environment of its own, then judged on texts it has not seen."""

import hashlib
import json
import mmap
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.artifact import Artifact, Stage, Workspace
from tasks.classify.config import ClassifierConfig
from tasks.classify.judgement import Judgement, judge
from tasks.classify.labels.examples import EXAMPLES
from tasks.classify.model import FACTS, Classifier
from tasks.classify.page import classifier_page
from tasks.classify.text import LABEL, to_line
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.progress import track
from tasks.shards import read_documents

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Path(__file__).with_name("train_fasttext.py")
STDERR_CHARS = 600


@dataclass(frozen=True)
class Split:
    """The examples on disk and in memory: lines to train on, in an order that nobody chose, and held-out texts."""

    lines: Path
    marks: tuple[int, ...]
    num_train: int
    heldout: pa.Table  # id, line, label

    @property
    def num_heldout(self) -> int:
        return self.heldout.num_rows


def train(workspace: Workspace, config: ClassifierConfig, inputs: dict[str, Artifact]) -> None:
    """Write `model.bin` (or `model.ftz`), `classifier.json`, `metrics.json`, `heldout.parquet` and `report.html`.

    One unit: a row in is an example, a row out one that was trained on or held out.

    Raises:
        ConfigError: there is no environment to train in.
        DataFault: fewer than two labels to train on or to judge with; a held-out AUC under `min_auc`.
        HostFault: the trainer was killed.
    """
    if workspace.unit_record("classifier") is not None:
        return
    python = trainer_python()
    split = prepare(inputs["examples"], workspace.scratch, config.seed)
    _require_labels(split, inputs["examples"].url)
    with workspace.unit("classifier") as unit, track(f"classifier {workspace.name}", 2, "steps") as bar:
        name = "model.ftz" if config.quantize else "model.bin"
        model = unit.local_file(name)
        made = fit(python, split, model, config)
        bar.advance(1)
        classifier = Classifier(model, split.marks)
        found = judge(classifier, split.heldout)
        _require_use(found, config, unit.key)
        rows = split.num_train + split.num_heldout
        facts = {
            "model": name,
            "marks": list(split.marks),
            "examples": {"train": split.num_train, "heldout": split.num_heldout},
            "trainer": made["trainer"],
            "words": made["words"],
        }
        unit.count(rows_in=rows, rows_out=rows)
        unit.write_json(FACTS, facts)
        unit.write_json("metrics.json", found.facts())
        unit.write_parquet("heldout.parquet", found.rows)
        unit.write_bytes("report.html", classifier_page(workspace.name, config, facts, found).encode())
        unit.note(trained_s=made["seconds"], auc=found.auc, accuracy=found.accuracy)


def trainer_python() -> Path:
    """The interpreter that can train.

    Raises:
        ConfigError: it is not there.
    """
    python = Path(os.environ.get("NESTLING_CLASSIFIER_PYTHON") or ROOT / ".venv-classifier" / "bin" / "python")
    if not python.exists():
        raise ConfigError(
            f"no {python}: fastText trains in an environment of its own, because the package that can train and the "
            "one that predicts own the same module. Run `make classifier`, or name an interpreter in "
            "NESTLING_CLASSIFIER_PYTHON."
        )
    return python


def prepare(examples: Artifact, scratch: Path, seed: int) -> Split:
    """Lines for fastText in the order of a hash. Memory holds the held-out texts and some dozen bytes an example."""
    scratch.mkdir(parents=True, exist_ok=True)
    unsorted, target = scratch / "unsorted.txt", scratch / "lines.txt"
    keys: list[bytes] = []
    ends: list[int] = []
    marks: set[int] = set()
    heldout: list[dict[str, Any]] = []
    with unsorted.open("wb") as file:
        for batch in read_documents(examples, EXAMPLES):
            for row in batch.to_pylist():
                marks.add(row["label"])
                line = to_line(row["text"])
                if row["heldout"]:
                    heldout.append({"id": row["id"], "line": line, "label": row["label"]})
                else:
                    file.write(f"{LABEL}{row['label']} {line}\n".encode())
                    ends.append(file.tell())
                    keys.append(_order(line, seed))
    order = sorted(range(len(keys)), key=lambda i: (keys[i], i))
    _write_in_order(unsorted, target, order, ends)
    schema = pa.schema([("id", pa.string()), ("line", pa.string()), ("label", pa.int64())])
    heldout.sort(key=lambda row: (row["id"], row["line"], row["label"]))  # sums of floats depend on the order
    return Split(target, tuple(sorted(marks)), len(keys), pa.Table.from_pylist(heldout, schema))


def fit(python: Path, split: Split, model: Path, config: ClassifierConfig) -> dict[str, Any]:
    """Train in a child process that dies with this one; returns what it says of the model.

    Raises:
        DataFault: fastText cannot learn from these lines.
        HostFault: the child was killed.
    """
    done = split.lines.with_name("done.json")
    done.unlink(missing_ok=True)
    job = split.lines.with_name("job.json")
    job.write_text(
        json.dumps(
            {
                "parent": os.getpid(),
                "lines": str(split.lines),
                "model": str(model),
                "done": str(done),
                "quantize": config.quantize,
                "arguments": {
                    "dim": config.dim,
                    "epoch": config.epochs,
                    "lr": config.learning_rate,
                    "minn": config.min_ngram,
                    "maxn": config.max_ngram,
                    "wordNgrams": config.word_ngrams,
                    "minCount": config.min_count,
                    "bucket": config.buckets,
                    "seed": config.seed,
                },
            }
        )
    )
    child = subprocess.run([str(python), "-I", str(TRAINER), str(job)], stderr=subprocess.PIPE, check=False)
    said = child.stderr.decode("utf-8", "replace").strip()[-STDERR_CHARS:]
    if child.returncode < 0:
        raise HostFault(
            f"the trainer of {model.name} was killed by signal {-child.returncode} ({said or 'it said nothing'}): "
            f"usually memory ran out; buckets={config.buckets:,} x dim={config.dim} x 4 bytes are its largest part. "
            "Lower one of them or free memory, and run again."
        )
    if child.returncode or not done.exists():
        raise DataFault(
            f"fastText ended with {child.returncode} on {split.num_train:,} lines: {said}. A model that was not saved "
            "cannot score. Look at the examples; when it says NaN, lower learning_rate."
        )
    return json.loads(done.read_text())


def _order(line: str, seed: int) -> bytes:
    return hashlib.blake2b(line.encode(), digest_size=8, key=seed.to_bytes(8, "big")).digest()


def _write_in_order(source: Path, target: Path, order: list[int], ends: list[int]) -> None:
    starts = [0, *ends]
    with target.open("wb") as out:
        if not order:
            return
        with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for index in order:
                out.write(data[starts[index] : starts[index + 1]])
    source.unlink()


def _require_labels(split: Split, url: str) -> None:
    held = np.unique(np.asarray(split.heldout["label"])).tolist()
    if len(split.marks) < 2 or len(held) < 2 or not split.num_train:
        raise DataFault(
            f"{url}: {split.num_train:,} examples to train on with labels {list(split.marks)}, {split.num_heldout:,} "
            f"held out with labels {held}: a classifier tells labels apart, and is judged by at least two. "
            "Draw more documents, or raise heldout_fraction."
        )


def _require_use(found: Judgement, config: ClassifierConfig, name: str) -> None:
    if found.auc is not None and found.auc < config.min_auc:
        raise DataFault(
            f"{name}: held-out AUC {found.auc:.3f} is below min_auc={config.min_auc}: its scores would cut almost at "
            "random. Give more or clearer examples, train longer (epochs), or lower min_auc."
        )


CLASSIFIER = Stage(
    name="classifier",
    version="1",
    run=train,
    code=(
        "tasks.classify.classifier",
        "tasks.classify.judgement",
        "tasks.classify.metrics",
        "tasks.classify.model",
        "tasks.classify.page",
        "tasks.classify.text",
        "tasks.classify.train_fasttext",
    ),
    expensive=True,
)
