"""Cleaning in processes of its own: killed at random moments it ends with the same bytes, and memory does not grow."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.shards import read_table
from tests.tasks.ingest.corpus import CONFIG, clean, many, mirror, wordy

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
KILLS = 20
SHARDS = 12  # of four pages


def start(store: Path, pages_url: str, workers: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.tasks.ingest.corpus", str(store), pages_url, str(workers)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers_of(process: int) -> list[int]:
    """The worker processes, without the helper that Python starts beside them."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_one(store: Path, pages_url: str, moment: random.Random) -> str:
    """Start a run and kill it, or one of its workers, some time after some shards were done; what was killed."""
    units, target = moment.randint(0, SHARDS - 3), moment.choice(["run", "worker"])
    with start(store, pages_url, moment.choice([2, 3])) as process:
        while process.poll() is None and len(list(store.glob("clean/*/ledger/*.json"))) < units:
            time.sleep(0.01)
        time.sleep(moment.uniform(0, 0.2))
        victims = workers_of(process.pid) if process.poll() is None and target == "worker" else []
        os.kill(moment.choice(victims) if victims else process.pid, signal.SIGKILL)
        _, said = process.communicate()
    if victims:
        assert "a worker of clean x was killed" in said
    return "worker" if victims else "run"


def test_after_twenty_kills_of_workers_and_runs_the_bytes_are_those_of_an_undisturbed_run(tmp_path):
    pages = mirror(tmp_path, many(4 * SHARDS))
    calm = clean(tmp_path / "calm", pages, CONFIG)
    seed = random.randrange(2**32)
    moment = random.Random(seed)
    killed: list[str] = []
    resumed = 0
    while len(killed) < KILLS:
        store = tmp_path / f"store-{len(killed)}"
        for _ in range(min(moment.randint(1, 4), KILLS - len(killed))):
            killed.append(kill_one(store, pages.url, moment))
        resumed += bool(list(store.glob("clean/*/ledger/*.json")))
        made = clean(store, pages, CONFIG.with_changes({"workers": moment.choice([1, 2, 7])}))
        assert made.manifest.content_digest == calm.manifest.content_digest, f"seed {seed}"
        assert made.manifest.counts == calm.manifest.counts, f"seed {seed}"
        assert [(e.path, e.sha256) for e in made.manifest.rejects] == [
            (e.path, e.sha256) for e in calm.manifest.rejects
        ], f"seed {seed}"
    assert {"run", "worker"} == set(killed)
    assert resumed >= 3, "the kills came too early to prove anything"


def peak_bytes(store: Path, pages_url: str) -> dict[str, int]:
    """Peak resident memory of a run in one process, and of its extractor."""
    with start(store, pages_url, 1) as process:
        out, said = process.communicate()
    assert process.returncode == 0, said
    return json.loads(out.splitlines()[-1])


def test_ten_times_the_documents_take_the_same_memory(tmp_path):
    pages = {name: mirror(tmp_path / name, wordy(pages), 400) for name, pages in (("1", 100), ("10", 1000))}
    peaks = {name: peak_bytes(tmp_path / name / "store", pages[name].url) for name in pages}
    made = clean(tmp_path / "10" / "store", pages["10"])  # a hit
    chars = sum(read_table(made, "annotations/", ["length.chars"]).column(0).to_pylist())
    assert made.manifest.counts.out == 1000
    assert 2 * chars > 0.3 * peaks["1"]["self"], "the texts are too few to show that they are not held"
    for who in ("self", "children"):
        assert peaks["10"][who] <= 1.2 * peaks["1"][who], f"{who}: {peaks}"
    print(peaks, f"{chars:,.0f} characters")
