"""Kills, workers and memory: what is made is the same, and finished shards are not made again."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.artifact import produce
from tasks.ingest.dedup.stage import DEDUP
from tests.tasks.ingest.dedup.small_corpora import CONFIG, dedup, document, documents, edited, prose

WHOLE = CONFIG.with_changes({"lines": {"min_documents": 2}, "recall_pairs": 20})


def corpus(count: int = 60) -> list[dict[str, str]]:
    rng = random.Random(3)
    texts = [prose(seed, 200) + "\n" + prose(seed % 5, 30) for seed in range(count)]
    texts += [edited(rng.choice(texts), seed, 3) for seed in range(count // 3)] + texts[: count // 10]
    return [document(i, text, source=f"s{i % 3}") for i, text in enumerate(texts)]


def contents(artifact) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in (*artifact.manifest.files, *artifact.manifest.rejects)}


@pytest.mark.slow
def test_the_number_of_workers_and_the_memory_change_no_byte(tmp_path):
    rows = corpus()
    one = dedup(tmp_path / "a", rows, WHOLE, shards=3)
    two = dedup(tmp_path / "b", rows, WHOLE.with_changes({"workers": 2, "memory_bytes": 8 << 20}), shards=3)
    assert contents(one) == contents(two)
    assert one.manifest.fingerprint == two.manifest.fingerprint
    assert len(one.manifest.counts.dropped) >= 2


def test_nothing_is_left_in_scratch(tmp_path):
    dedup(tmp_path, corpus(20), WHOLE, shards=2)
    assert [path for path in (tmp_path / ".scratch").rglob("*") if path.is_file()] == []


def test_a_failure_after_the_sketches_does_not_make_them_again(tmp_path, monkeypatch):
    docs = documents(tmp_path, corpus(), shards=3)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.ingest.dedup.stage.decide", lambda corpus: (_ for _ in ()).throw(OSError("unplugged")))
        with pytest.raises(OSError, match="unplugged"):
            produce(str(tmp_path), DEDUP, "x", WHOLE, {"docs": docs})
    sketched: list[str] = []
    monkeypatch.setattr("tasks.ingest.dedup.stage.sketch", lambda *call: sketched.append(call[0]))
    made = produce(str(tmp_path), DEDUP, "x", WHOLE, {"docs": docs})
    assert sketched == []
    monkeypatch.undo()
    assert contents(made) == contents(dedup(tmp_path / "b", corpus(), WHOLE, shards=3))


def test_a_failure_among_the_last_shards_is_resumed_over_what_scratch_still_holds(tmp_path, monkeypatch):
    docs = documents(tmp_path, corpus(), shards=3)
    with monkeypatch.context() as patch:
        patch.setattr("tasks.ingest.dedup.stage.write_shard", lambda *call: (_ for _ in ()).throw(OSError("unplugged")))
        with pytest.raises(OSError, match="unplugged"):
            produce(str(tmp_path), DEDUP, "x", WHOLE, {"docs": docs})
    made = produce(str(tmp_path), DEDUP, "x", WHOLE, {"docs": docs})
    assert contents(made) == contents(dedup(tmp_path / "b", corpus(), WHOLE, shards=3))


RUN = """
import sys
from tasks.artifact import open_artifact, produce
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.stage import DEDUP

if __name__ == "__main__":
    docs = open_artifact(sys.argv[2])
    config = DedupConfig.model_validate_json(sys.argv[3])
    produce(sys.argv[1], DEDUP, "x", config, {"docs": docs}, lease_ttl_s=2)
"""


@pytest.mark.slow
def test_after_random_kills_the_bytes_are_those_of_an_undisturbed_run(tmp_path):
    rows, root = corpus(300), Path(__file__).parents[4]
    expected = contents(dedup(tmp_path / "a", rows, WHOLE, shards=8))
    docs = documents(tmp_path / "b", rows, shards=8)
    (tmp_path / "run.py").write_text(RUN)
    command = [sys.executable, str(tmp_path / "run.py"), str(tmp_path / "b"), docs.url]
    command.append(WHOLE.with_changes({"workers": 2}).model_dump_json())
    rng, kills = random.Random(5), 0
    for _ in range(20):
        child = subprocess.Popen(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
        time.sleep(rng.uniform(0.5, 9))
        if child.poll() is not None:
            break
        child.send_signal(signal.SIGKILL)
        child.wait()
        kills += 1
    subprocess.run(command, cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=True, timeout=300)
    made = produce(str(tmp_path / "b"), DEDUP, "x", WHOLE, {"docs": docs})
    assert contents(made) == expected
    assert kills >= 3
