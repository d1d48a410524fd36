"""Training in its own environment: reproducible, dead with its parent, refused when it cannot mean anything."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from tasks.artifact import Artifact, produce
from tasks.classify.classifier import CLASSIFIER, TRAINER, prepare, trainer_python
from tasks.classify.config import ClassifierConfig
from tasks.classify.labels.examples import EXAMPLE
from tasks.classify.model import open_classifier
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.records import table
from tasks.shards import read_table
from tests.tasks.artifacts import artifact
from tests.tasks.classify.conftest import LEARNED, SHOP, SMALL, texts

ROOT = Path(__file__).resolve().parents[3]


def train(store, examples: Artifact, **changes: object) -> Artifact:
    return produce(str(store), CLASSIFIER, "x", ClassifierConfig(**SMALL).with_changes(changes), {"examples": examples})


def example_artifact(store, rows: list[tuple[str, int, bool]]) -> Artifact:
    made = [{"id": f"{n}", "text": t, "label": y, "source": "s", "heldout": h} for n, (t, y, h) in enumerate(rows)]
    return artifact(store, "annotate", "x", {"examples/0.parquet": table(made, EXAMPLE)})


def test_the_two_environments_own_the_same_module_and_never_meet(trains):
    """The reason of .venv-classifier: here the module cannot train, there it is another package."""
    import fasttext

    assert not hasattr(fasttext, "train_supervised")
    code = "import fasttext, sys; print(hasattr(fasttext, 'train_supervised'), 'pydantic' in sys.modules)"
    said = subprocess.run([trainer_python(), "-I", "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["True", "False"]
    text = TRAINER.read_text()
    assert "from tasks" not in text
    assert "import tasks" not in text


def test_what_is_written_says_how_good_it_is_and_of_what_it_was_made(classifier, examples):
    facts, found = classifier.read_json("classifier.json"), classifier.read_json("metrics.json")
    held = sum(row["heldout"] for row in read_table(examples, "examples/").to_pylist())
    assert facts["marks"] == [0, 1]
    assert facts["examples"] == {"train": 300 - held, "heldout": held}
    assert facts["trainer"] == "fasttext-community 0.11.9"
    assert found["heldout"] == held
    assert found["accuracy"] > 0.95
    assert found["auc"]["1"] > 0.99
    assert (classifier.manifest.counts.in_, classifier.manifest.counts.out) == (300, 300)
    page = classifier.read_bytes("report.html").decode()
    assert page.count("<svg") >= 1
    assert "quadratic weighted kappa" in page


def test_the_held_out_rows_are_what_the_metrics_were_made_of(classifier):
    rows = read_table(classifier, "heldout.parquet")
    found = classifier.read_json("metrics.json")
    said = np.column_stack([rows["probability_0"], rows["probability_1"]]).argmax(axis=1)
    assert float(np.mean(said == rows["label"].to_numpy())) == pytest.approx(found["accuracy"])
    assert rows["score"].to_numpy() == pytest.approx(rows["probability_1"].to_numpy())


def test_the_same_examples_in_other_shards_give_the_same_bytes(tmp_path, classifier, examples):
    rows = read_table(examples, "examples/").to_pylist()
    other = {
        "examples/0.parquet": table(rows[::-1][:17], EXAMPLE),
        "examples/1.parquet": table(rows[::-1][17:], EXAMPLE),
    }
    again = train(tmp_path, artifact(tmp_path, "contrast", "other", other))
    assert again.read_bytes("model.bin") == classifier.read_bytes("model.bin")
    assert again.read_json("metrics.json") == classifier.read_json("metrics.json")
    assert again.read_bytes("heldout.parquet") == classifier.read_bytes("heldout.parquet")


def test_held_out_texts_are_not_among_the_lines_to_train_on(tmp_path, examples):
    split = prepare(examples, tmp_path / "scratch", 0)
    lines = {line.partition(" ")[2] for line in split.lines.read_text().splitlines()}
    held = set(split.heldout["line"].to_pylist())
    assert len(lines) == split.num_train
    assert not lines & held
    assert split.num_train + split.num_heldout == 300


def test_a_quantised_model_is_smaller_and_agrees(tmp_path, classifier, examples):
    small = train(tmp_path, examples, quantize=True)
    assert small.read_json("classifier.json")["model"] == "model.ftz"
    assert small.entry("model.ftz").bytes < classifier.entry("model.bin").bytes / 1.5
    assert small.read_json("metrics.json")["accuracy"] > 0.9


def test_four_marks_have_an_expected_mark_as_score(trains, tmp_path):
    rows = [
        (text, mark, n % 4 == 0) for mark in range(4) for n, text in enumerate(texts((f"印{mark}の文。",), 24, mark))
    ]
    made = train(tmp_path, example_artifact(tmp_path, rows))
    model = open_classifier(made)
    found = model.probabilities(["印0の文。印0の文。", "印3の文。印3の文。"])
    assert model.highest == 3
    assert found.sum(axis=1) == pytest.approx([1, 1])
    assert model.scores(found) == pytest.approx([(row * np.arange(4)).sum() for row in found])
    assert model.scores(found)[1] > model.scores(found)[0] + 1
    assert set(made.read_json("metrics.json")["auc"]) == {"1", "2", "3"}


def test_probabilities_are_those_of_fasttext_without_its_smoothing(classifier):
    import fasttext

    model = open_classifier(classifier)
    lines = ["光合成は葉緑体で行われる。", "送料無料で今すぐ購入。", "", "abc def"]
    raw = fasttext.load_model(str(model.path))
    for line, row in zip(lines, model.probabilities(lines), strict=True):
        labels, said = raw.predict(line, k=2)
        expected = {label: value - 1e-5 for label, value in zip(labels, said, strict=True)}
        assert row == pytest.approx([expected["__label__0"], expected["__label__1"]], abs=1e-6)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param([("a b", 1, False), ("c d", 1, True)], r"labels \[1\]", id="one label"),
        pytest.param([("a b", 1, False), ("c d", 0, False), ("e", 1, True)], r"held out with labels \[1\]", id="held"),
        pytest.param([("a b", 1, True), ("c d", 0, True)], "0 examples to train on", id="all held out"),
    ],
)
def test_examples_that_cannot_teach_or_judge_are_refused(trains, tmp_path, rows, message):
    with pytest.raises(DataFault, match=message):
        train(tmp_path, example_artifact(tmp_path, rows))


def test_a_classifier_that_guesses_is_refused_when_a_least_auc_is_asked(trains, tmp_path):
    same = [(text, n % 2, n % 3 == 0) for n, text in enumerate(texts((*LEARNED, *SHOP), 60, 7))]
    examples = example_artifact(tmp_path, same)
    with pytest.raises(DataFault, match=r"below min_auc=0\.95"):
        train(tmp_path, examples, min_auc=0.95)
    assert train(tmp_path, examples, min_auc=0.0).manifest.counts.out == 60


def test_without_the_environment_the_message_says_how_to_make_it(monkeypatch, tmp_path, examples):
    monkeypatch.setenv("NESTLING_CLASSIFIER_PYTHON", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="make classifier"):
        train(tmp_path, examples)


@pytest.mark.parametrize(
    ("program", "fault", "message"),
    [
        pytest.param("kill -9 $$", HostFault, "killed by signal 9", id="killed"),
        pytest.param("echo Encountered NaN. >&2; exit 1", DataFault, "Encountered NaN", id="it fails"),
        pytest.param("exit 0", DataFault, "ended with 0", id="it leaves nothing"),
    ],
)
def test_a_trainer_that_ends_badly_leaves_no_model(monkeypatch, tmp_path, examples, program, fault, message):
    script = tmp_path / "python"
    script.write_text(f"#!/bin/sh\n{program}\n")
    script.chmod(0o755)
    monkeypatch.setenv("NESTLING_CLASSIFIER_PYTHON", str(script))
    with pytest.raises(fault, match=message):
        train(tmp_path, examples)
    assert not list((tmp_path / "classifier").rglob("MANIFEST.json"))
    assert not list((tmp_path / "classifier").rglob("model.bin"))


def test_the_trainer_dies_with_the_process_that_asked(trains, tmp_path):
    """A parent that is killed while fastText trains for minutes leaves nothing behind."""
    lines = tmp_path / "lines.txt"
    lines.write_text("".join(f"__label__{n % 2} 光合成 {n}\n" for n in range(2000)))
    job = {"lines": str(lines), "model": str(tmp_path / "m.bin"), "done": str(tmp_path / "done"), "quantize": False}
    job["arguments"] = {"epoch": 1_000_000, "dim": 16, "bucket": 1000, "minn": 2, "maxn": 3}
    parent = textwrap.dedent(
        f"""
        import json, os, pathlib, subprocess
        job = {job!r} | {{"parent": os.getpid()}}
        path = pathlib.Path({str(tmp_path / "job.json")!r})
        path.write_text(json.dumps(job))
        child = subprocess.Popen([{str(trainer_python())!r}, "-I", {str(TRAINER)!r}, str(path)])
        print(child.pid, flush=True)
        child.wait()
        """
    )
    asking = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    child = int(asking.stdout.readline())
    _until(lambda: b"fasttext" in Path(f"/proc/{child}/maps").read_bytes(), "the trainer has loaded fastText")
    asking.kill()
    asking.wait()
    asking.stdout.close()
    _until(lambda: not _runs(child), "the trainer is gone")
    assert not (tmp_path / "done").exists()


def test_a_trainer_whose_parent_is_gone_does_not_begin(trains, tmp_path):
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"parent": 1 if os.getppid() != 1 else 2}))
    done = subprocess.run([trainer_python(), "-I", TRAINER, job], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is gone" in done.stderr


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(holds, what: str) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, f"not within a minute: {what}"
        time.sleep(0.05)
