"""The same shards on a real Ray cluster of several raylets: the bytes of one process, whatever dies on the way."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import DataFault, HostFault
from tests.tasks.ingest.corpus import CONFIG, clean, many, mirror
from tests.tasks.shard_job import ShoutConfig, keys, shouted

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own warnings
MIB = 1 << 20


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A head that does no shards and two nodes of one CPU each."""
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "object_store_memory": 80 * MIB, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80 * MIB)
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


def config_of(folder: Path, names: tuple[str, ...], **fields) -> ShoutConfig:
    return ShoutConfig(keys=names, notes=str(folder / "notes"), **fields)


def finished(folder: Path) -> list[Path]:
    return list(folder.glob("shout/*/ledger/*.json"))


def test_a_node_that_dies_in_the_middle_of_a_run_changes_nothing(cluster, tmp_path):
    names = keys(16, "kill-a")  # one worker process is killed too: Ray gives its shard out again
    local = shouted(tmp_path / "local", config_of(tmp_path / "local", keys(16)))
    lost = threading.Thread(target=lambda: _lose_a_node(cluster, tmp_path))
    lost.start()
    made = shouted(tmp_path, config_of(tmp_path, names, runner="ray", seconds=1.0))
    lost.join()
    assert len(cluster.worker_nodes) == 1
    assert (tmp_path / "notes" / "lost").read_text() in {"4", "5", "6"}, "the node was not lost in the middle"
    assert {e.path: e.sha256 for e in made.files()}.items() >= {e.path: e.sha256 for e in local.files()}.items()
    assert len(made.files()) == made.manifest.counts.out == 17
    assert not list(tmp_path.rglob(".staging"))


def _lose_a_node(cluster, folder: Path) -> None:
    deadline = time.monotonic() + 300
    while len(finished(folder)) < 4 and time.monotonic() < deadline:
        time.sleep(0.05)
    count = len(finished(folder))
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    (folder / "notes" / "lost").write_text(str(count))


def test_a_cleaned_corpus_has_the_bytes_of_the_embedded_run(cluster, tmp_path):
    pages = mirror(tmp_path, many(40))
    local = clean(tmp_path / "local", pages)
    spread = clean(tmp_path / "ray", pages, CONFIG.with_changes({"runner": "ray"}))
    assert spread.manifest.content_digest == local.manifest.content_digest
    assert spread.manifest.counts == local.manifest.counts
    assert [(e.path, e.sha256) for e in spread.manifest.rejects] == [(e.path, e.sha256) for e in local.manifest.rejects]


def test_an_error_of_a_shard_is_the_error_of_the_run_and_no_retry(cluster, tmp_path):
    with pytest.raises(DataFault, match="shard fail-b is bad"):
        shouted(tmp_path, config_of(tmp_path, keys(4, "fail-b"), runner="ray"))
    made = shouted(tmp_path, config_of(tmp_path, keys(4, "fail-b"), workers=1))
    assert len(made.files()) == 5, "what the cluster had finished is kept"


def test_a_shard_that_always_kills_its_worker_ends_the_run_with_a_remedy(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr("tasks.ray_workers.RETRIES", 1)
    with pytest.raises(HostFault, match=r"shard die-c ended 2 times(.|\n)*more memory for each CPU"):
        shouted(tmp_path, config_of(tmp_path, ("shard-000", "die-c"), runner="ray"))
