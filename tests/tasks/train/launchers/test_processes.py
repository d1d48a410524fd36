"""Several trainers on one machine: together they do what one does, whatever happens to one of them."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tasks.errors import DataFault, HostFault
from tasks.tokens import TextTokenizer
from tasks.train.dump import read_dump
from tasks.train.feed.batches import Batches
from tasks.train.feed.sources import open_sources
from tasks.train.feed.streams import FeedConfig
from tasks.train.journal import lasting, lines
from tasks.train.launcher import train_to_the_end
from tasks.train.launchers import processes
from tasks.train.launchers.processes import ProcessesLauncher
from tasks.train.run import RunSpec
from tests.tasks.train.nano import files, nano_spec

NANO = ProcessesLauncher((sys.executable, "-m", "tests.tasks.train.nano"))
STEPS = 24
RUN = {"mesh": {"fsdp": 2, "data": 2}, "streams": 4, "total_tokens": 128 * STEPS, "save_every_steps": 6}
TWO = RUN | {"launcher": "processes", "hosts": 2}


def losses(spec: RunSpec) -> list[float]:
    return [json.loads(line)["loss"] for line in spec.metrics.read_text().splitlines()]


def done(spec: RunSpec) -> int:
    """Steps in the journal."""
    return spec.metrics.read_text().count("\n") if spec.metrics.exists() else 0


@pytest.fixture
def children(monkeypatch) -> list[subprocess.Popen]:
    """The processes of the newest attempt, by host."""
    started: list[subprocess.Popen] = []
    original = processes.start

    def start(*args):
        if len(started) == 2:
            started.clear()
        started.append(original(*args))
        return started[-1]

    monkeypatch.setattr(processes, "start", start)
    return started


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text_pack) -> RunSpec:
    spec = nano_spec(tmp_path_factory.mktemp("undisturbed"), text_pack, **TWO)
    assert NANO.run(spec, spec.write(), lambda: None) == 0, spec.log.read_text()[-3000:]
    return spec


# Two processes add up over a socket what one adds up in memory: in another order, which the last bit of float32 shows.
ROUNDING = 1e-6


@pytest.mark.slow
def test_two_processes_of_two_devices_are_one_of_four(tmp_path, text_pack, chat_pack, undisturbed):
    alone = nano_spec(tmp_path / "one", text_pack, **(TWO | {"hosts": 1}))
    assert NANO.run(alone, alone.write(), lambda: None) == 0, alone.log.read_text()[-3000:]
    assert losses(undisturbed) == pytest.approx(losses(alone), rel=ROUNDING)
    assert sorted(files(undisturbed.result)) == sorted(files(alone.result))
    # From a base, with noise for every row.
    chat = {"kind": "sft", "neftune_alpha": 5.0, "seq_len": 32, "total_tokens": 128 * 6}
    tuned = [
        nano_spec(tmp_path / f"tuned-{hosts}", chat_pack, **(TWO | chat | {"hosts": hosts})).model_copy(
            update={"base_dir": alone.result / "model"}
        )
        for hosts in (1, 2)
    ]
    for spec in tuned:
        assert NANO.run(spec, spec.write(), lambda: None) == 0, spec.log.read_text()[-3000:]
    assert losses(tuned[1]) == pytest.approx(losses(tuned[0]), rel=ROUNDING)


@pytest.mark.slow
def test_told_killed_and_resumed_the_result_is_that_of_the_undisturbed_run(tmp_path, text_pack, undisturbed, children):
    """A notice to one host stops all at one step; a killed host brings all of them back to the newest checkpoint."""
    spec = nano_spec(tmp_path, text_pack, preempt_budget=1, fault_budget=1, **TWO)
    plan = iter([(4, 1, signal.SIGTERM), (9, 1, signal.SIGKILL), (14, 0, signal.SIGKILL), (17, 0, signal.SIGTERM)])
    seen: list[tuple[int, int]] = []

    def disturbing() -> Iterator[None]:
        for step, host, number in plan:
            while done(spec) < step:
                yield
            before = done(spec)
            os.kill(children[host].pid, number)
            group = list(children)
            while children == group:  # until the next attempt
                yield
            seen.append((before, max(int(p.name) for p in spec.checkpoints.iterdir() if p.name.isdigit())))
        while True:
            yield

    disturb = disturbing()
    launcher = _Following(lambda: next(disturb))
    assert train_to_the_end(spec, launcher, "x", STEPS) == 5
    assert files(spec.result) == files(undisturbed.result)
    assert lasting(spec.metrics) == lasting(undisturbed.metrics)
    for at, (before, newest) in enumerate(seen):
        lost = 0 if at in (0, 3) else 6  # none with a notice, at most those since the newest checkpoint without
        assert newest >= before - lost
    assert launcher.codes == [75, -signal.SIGKILL, -signal.SIGKILL, 75, 0]


class _Following(ProcessesLauncher):
    def __init__(self, disturb: Callable[[], None]):
        super().__init__(NANO._command)
        self._disturb = disturb
        self.codes: list[int] = []

    def run(self, spec, run_json, follow):
        def both():
            follow()
            self._disturb()

        self.codes.append(super().run(spec, run_json, both))
        return self.codes[-1]


@pytest.mark.slow
def test_a_host_that_hangs_is_found_and_said_and_the_run_goes_on(tmp_path, text_pack, undisturbed, children):
    spec = nano_spec(tmp_path, text_pack, step_timeout_s=20, fault_budget=1, **(TWO | {"save_every_steps": 12}))
    hung: list[int] = []

    def hang() -> None:
        if done(spec) >= 13 and not hung:  # far from a save, which may take longer
            hung.append(children[1].pid)
            os.kill(hung[0], signal.SIGSTOP)

    launcher = _Following(hang)
    assert launcher.run(spec, spec.write(), lambda: None) == 76
    said = json.loads(spec.error.read_text())["message"]
    assert said.startswith("no step was finished for 2")
    assert "step_timeout_s=20" in said
    log = spec.log.read_text()
    assert "most recent call first" in log
    assert "in _loop" in log, "where the one that waits is"
    assert [child.poll() for child in children] == [76, -signal.SIGKILL]
    assert launcher.run(spec, spec.write(), lambda: None) == 0
    assert files(spec.result) == files(undisturbed.result)


@pytest.mark.slow
def test_a_checkpoint_that_one_host_cannot_read_stops_all_or_is_given_up_by_all(tmp_path, text_pack):
    halves = TWO | {"mesh": {"fsdp": 4}}  # each host has half of the weights
    spec = nano_spec(tmp_path, text_pack, **halves)
    assert train_to_the_end(spec, NANO, "x", STEPS) == 1
    before = files(spec.result)
    shutil.rmtree(spec.result)
    parts = (spec.checkpoints / str(STEPS)).glob("**/ocdbt.process_1/d/*")
    part = max(parts, key=lambda path: path.stat().st_size)
    part.write_bytes(part.read_bytes()[:2000])
    with pytest.raises(DataFault, match="allow_rollback"):
        train_to_the_end(spec, NANO, "x", STEPS)
    allowed = nano_spec(tmp_path, text_pack, allow_rollback=True, **halves)
    assert train_to_the_end(allowed, NANO, "x", STEPS) == 2
    assert files(allowed.result) == before
    assert [line["lost"] for line in lines(spec.run_dir / "rollbacks.jsonl")] == [6]


@pytest.mark.slow
def test_a_copy_elsewhere_brings_all_hosts_back(tmp_path, text_pack):
    """A part that one host cannot read is fetched again; so is everything when the disk is gone; a bad copy is not."""
    copies = TWO | {"mesh": {"fsdp": 4}, "remote": str(tmp_path / "remote")}
    spec = nano_spec(tmp_path / "run", text_pack, **copies)
    assert train_to_the_end(spec, NANO, "x", STEPS) == 1
    before = files(spec.result)
    remote = tmp_path / "remote" / spec.identity.digest()[:12]
    assert json.loads((remote / "NEWEST.json").read_text()) == {"step": STEPS}
    assert sorted(int(p.name) for p in remote.iterdir() if p.is_dir()) == [12, 18, 24]

    shutil.rmtree(spec.result)
    part = max((spec.checkpoints / str(STEPS)).glob("**/ocdbt.process_1/d/*"), key=lambda path: path.stat().st_size)
    part.write_bytes(part.read_bytes()[:2000])
    assert train_to_the_end(spec, NANO, "x", STEPS) == 2
    assert files(spec.result) == before

    shutil.rmtree(spec.run_dir)
    assert train_to_the_end(spec, NANO, "x", STEPS) == 1
    assert files(spec.result) == before
    assert "fetched step 24" in spec.log.read_text()
    assert not (spec.run_dir / "rollbacks.jsonl").exists()

    shutil.rmtree(spec.run_dir)
    copy = max((remote / str(STEPS)).glob("**/ocdbt.process_1/d/*"), key=lambda path: path.stat().st_size)
    copy.write_bytes(copy.read_bytes()[:2000])
    with pytest.raises(DataFault, match=r"the copy of step 24 is damaged.*rollback_steps_budget to 6"):
        train_to_the_end(spec, NANO, "x", STEPS)
    allowed = nano_spec(tmp_path / "run", text_pack, **(copies | {"rollback_steps_budget": 6}))
    assert train_to_the_end(allowed, NANO, "x", STEPS) == 2
    assert files(spec.result) == before
    assert [line["lost"] for line in lines(spec.run_dir / "rollbacks.jsonl")] == [6]


@pytest.mark.slow
def test_a_step_that_stops_the_run_is_dumped_with_the_rows_of_all_hosts(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack, **(TWO | {"spike_factor": 0.01, "spike_window": 4, "skip_spikes": 1}))
    with pytest.raises(DataFault, match=r"is a spike.*skip_spikes=1"):
        train_to_the_end(spec, NANO, "x", STEPS)
    assert sum("skipped" in line for line in lines(spec.metrics)) == 1
    found, batch = read_dump(spec.dump)
    sources, config = open_sources(spec.data_dir, spec.mixture(), spec.config.seed), spec.config
    cfg = FeedConfig("text", config.seq_len, config.rows, config.streams, config.seed, config.loss_turns)
    all_rows = Batches(sources, TextTokenizer(spec.tokenizer_dir), cfg)
    wanted = next(itertools.islice(iter(all_rows), found.step - 1, None))
    assert batch.keys() == wanted.keys()
    assert all(np.array_equal(batch[name], wanted[name]) for name in wanted)


def script(text: str) -> ProcessesLauncher:
    return ProcessesLauncher(("sh", "-c", text, "trainer"))


def test_every_host_is_told_who_it_is_and_gets_its_devices(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack, **TWO)
    told = (
        f'cd {tmp_path}; echo "$NESTLING_HOST/$NESTLING_HOSTS $NESTLING_COORDINATOR $XLA_FLAGS" > told-$NESTLING_HOST'
    )
    assert script(told).run(spec, spec.write(), lambda: None) == 0
    first, second = ((tmp_path / f"told-{host}").read_text().split() for host in (0, 1))
    assert (first[0], second[0]) == ("0/2", "1/2")
    assert first[1] == second[1]
    assert first[1].startswith("127.0.0.1:")
    assert "--xla_force_host_platform_device_count=2" in first


def test_the_host_that_failed_first_speaks_for_all_and_the_others_are_ended(tmp_path, text_pack, monkeypatch):
    monkeypatch.setattr(processes, "LINGER_S", 0.3)
    spec = nano_spec(tmp_path, text_pack, **TWO)
    text = f"""cd {tmp_path}; [ $NESTLING_HOST = 0 ] && exec sleep 60
    echo '{{"code": 77, "message": "a record is broken"}}' > error-1.json; exit 77"""
    with pytest.raises(DataFault, match=r"^a record is broken$"):
        train_to_the_end(spec, script(text), "x", STEPS)


def test_a_host_that_is_gone_is_one_host_fault(tmp_path, text_pack, monkeypatch):
    monkeypatch.setattr(processes, "LINGER_S", 0.3)
    spec = nano_spec(tmp_path, text_pack, fault_budget=1, **TWO)
    text = f"cd {tmp_path}; echo x >> started; [ $NESTLING_HOST = 0 ] && exec sleep 60; kill -9 $$"
    with pytest.raises(HostFault, match="killed by SIGKILL"):
        train_to_the_end(spec, script(text), "x", STEPS)
    assert (tmp_path / "started").read_text().count("x") == 4, "two attempts of two"


def test_stopping_the_flow_tells_all_of_them_to_save(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack, **TWO)
    text = f"""cd {tmp_path}; trap 'echo > saved-$NESTLING_HOST; exit 75' TERM; echo > up-$NESTLING_HOST
    while true; do sleep 0.05; done"""

    def follow():
        if len(list(tmp_path.glob("up-*"))) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        script(text).run(spec, spec.write(), follow)
    assert sorted(path.name for path in tmp_path.glob("saved-*")) == ["saved-0", "saved-1"]
