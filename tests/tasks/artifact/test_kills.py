"""Proof that a run may die at any moment: nothing is lost, doubled or different afterwards."""

import errno
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.artifact import StoreFull, produce
from tasks.artifact.manifest import MANIFEST, RUN
from tasks.storage import LOCAL
from tests.tasks.artifact.counting_stage import COUNT, ROWS, CountingConfig, rows_of, tree
from tests.tasks.artifact.dying_disk import Dies, run_with

ROOT = Path(__file__).parents[3]
KILLS = 30
SHARDS = 12
SLEEP_S = 0.02


def undisturbed(tmp_path: Path, shards: int) -> dict[str, str]:
    return tree(produce(str(tmp_path / "calm"), COUNT, "kill", CountingConfig(shards=shards), {}).url)


def kill(store: str, units: int, wait_s: float) -> None:
    """Start a run and kill it a moment after so many units were finished, wherever it is then."""
    command = [sys.executable, "-m", "tests.tasks.artifact.counting_stage", store, str(SHARDS), str(SLEEP_S)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        while process.poll() is None and len(list(Path(store).glob("count/*/ledger/*.json"))) < units:
            time.sleep(0.001)
        time.sleep(wait_s)
        process.kill()


def test_after_thirty_kills_at_random_moments_the_bytes_are_those_of_an_undisturbed_run(tmp_path: Path):
    expected = undisturbed(tmp_path, SHARDS)
    seed = random.randrange(2**32)
    moment = random.Random(seed)
    kills = resumed = 0
    while kills < KILLS:
        store = str(tmp_path / f"store-{kills}")
        for _ in range(min(moment.randint(1, 3), KILLS - kills)):
            kill(store, units=moment.randint(0, SHARDS + 1), wait_s=moment.uniform(0, 2 * SLEEP_S))
            kills += 1
        done = set(Path(store).glob("count/*/ledger/*.json"))
        resumed += bool(done) and not list(Path(store).glob(f"count/*/{MANIFEST}"))
        written = {path: path.stat().st_mtime_ns for path in done}
        artifact = produce(store, COUNT, "kill", CountingConfig(shards=SHARDS), {})
        assert tree(artifact.url) == expected, f"seed {seed}"
        assert {path: path.stat().st_mtime_ns for path in done} == written, "a finished unit was done again"
        out, rejected = rows_of(artifact)
        assert sorted(out + rejected) == list(range(SHARDS * ROWS)), f"seed {seed}"
        assert not list(Path(store).rglob("*.tmp"))
        assert not list(Path(store, ".scratch").iterdir())
    assert resumed >= 5, "the kills came too early or too late to prove anything"


def test_a_death_before_each_single_change_of_the_disk_is_repaired(tmp_path: Path):
    expected = undisturbed(tmp_path, 3)
    command = [sys.executable, "-m", "tests.tasks.artifact.dying_disk", str(tmp_path), "3"]
    deaths = int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    assert deaths > 3 * 4, "each unit has at least four writes"
    for at in range(deaths + 1):
        artifact = produce(str(tmp_path / f"store-{at}"), COUNT, "kill", CountingConfig(shards=3), {})
        assert tree(artifact.url) == expected, f"died before change {at}"
        assert LOCAL.version(artifact.url + "/" + MANIFEST)
        assert not list(Path(tmp_path, f"store-{at}", ".scratch").iterdir()), f"died before change {at}"
        assert not Path(artifact.url, RUN).exists(), f"died before change {at}"


def test_a_full_disk_at_each_single_write_stops_with_the_reason_and_loses_nothing(tmp_path: Path):
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

    config = CountingConfig(shards=3)
    expected = undisturbed(tmp_path, 3)
    for at in range(3 * 4 + 4):  # a unit has four writes; lease, config, expected units and manifest one each
        store = str(tmp_path / f"store-{at}")
        with pytest.raises(StoreFull, match=r"MiB free(.|\n)*nestling gc") as stopped:
            run_with(Dies(at, full), store, config)
        assert len(str(stopped.value)) < 1200, "one screen"
        done = {path: path.stat().st_mtime_ns for path in Path(store).glob("count/*/ledger/*.json")}
        artifact = produce(store, COUNT, "kill", config, {})
        assert tree(artifact.url) == expected
        assert {path: path.stat().st_mtime_ns for path in done} == done, "a finished unit was done again"
