"""A trainer whose batches come from worker processes makes the model of one that makes them itself, byte for byte."""

import json

import psutil
import pytest

from tasks.errors import HostFault, Preempted
from tasks.train.feed.ledger import require_counted
from tasks.train.trainer import train
from tests.tasks.train.nano import files, nano_spec


def run(run_dir, data, workers, steps, at=0, then=None):
    """A run whose trainer does something when a step is through."""
    asked = 0

    def at_step() -> bool:
        nonlocal asked
        asked += 1
        return asked == at and then()

    changes = {"streams": 4, "total_tokens": steps * 128, "save_every_steps": 50, "feed_workers": workers}
    spec = nano_spec(run_dir, data, **changes)
    train(spec, at_step)
    return spec


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text_pack):
    return run(tmp_path_factory.mktemp("undisturbed"), text_pack, 0, 12)


def test_the_number_of_workers_may_change_and_the_model_is_the_same(tmp_path, text_pack, undisturbed):
    with pytest.raises(Preempted, match="stopped at step 2"):
        run(tmp_path, text_pack, 3, 12, 2, lambda: True)
    assert files(run(tmp_path, text_pack, 1, 12).result) == files(undisturbed.result)
    workers = [child for child in psutil.Process().children() if "tasks.train.feed" in child.cmdline()]
    assert not workers, "they end with the trainer"


@pytest.mark.slow
def test_a_worker_may_be_killed_and_the_model_is_the_same(tmp_path, text_pack):
    def kill_a_worker() -> None:
        workers = [child for child in psutil.Process().children() if "tasks.train.feed" in child.cmdline()]
        assert len(workers) == 3
        workers[1].kill()

    steps = 120  # more than a pipe holds
    with pytest.raises(HostFault, match=r"feed worker 2 of 3 .* was killed by SIGKILL.*fewer feed_workers"):
        run(tmp_path / "killed", text_pack, 3, steps, 1, kill_a_worker)
    killed, whole = (run(tmp_path / name, text_pack, workers, steps) for name, workers in (("killed", 2), ("whole", 0)))
    assert files(killed.result) == files(whole.result)


def test_the_ledger_and_the_metrics_count_the_same_tokens(undisturbed):
    last = json.loads(undisturbed.metrics.read_text().splitlines()[-1])
    sources = json.loads((undisturbed.result / "token_ledger.json").read_text())["sources"]
    assert sum(source["inputs"] for source in sources) == last["tokens"] == 12 * 128
    assert 0 < sum(source["learned"] for source in sources) == last["learned"] < 12 * 128


def test_a_token_that_is_counted_on_one_side_only_stops_the_run():
    said = {"sources": [{"inputs": 10, "learned": 7}, {"inputs": 5, "learned": 5}]}
    require_counted(said, tokens=15, learned=12)
    with pytest.raises(AssertionError, match="gave 15 tokens"):
        require_counted(said, tokens=14, learned=12)
    with pytest.raises(AssertionError, match="gave 12 tokens"):
        require_counted(said, tokens=15, learned=13)
