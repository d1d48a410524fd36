"""Twenty interruptions of one run of two hosts, of every kind, at moments that nobody chose."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

from tasks.artifact import Artifact, open_artifact, produce
from tasks.train import stage
from tasks.train.goodput import read_marks
from tasks.train.hosts import HOST
from tasks.train.launchers.processes import ProcessesLauncher
from tasks.train.preemption import HOST_VARIABLE
from tasks.train.stage import TRAIN
from tests.tasks.train.fake_metadata import FakeMetadata
from tests.tasks.train.nano import nano_config
from tests.tasks.train.test_stage import scratch, steps_done

ROOT = Path(__file__).resolve().parents[3]
NANO = (sys.executable, "-m", "tests.tasks.train.nano")
STEPS, EVERY = 400, 6
RUN = {
    "launcher": "processes",
    "hosts": 2,
    "mesh": {"fsdp": 2, "data": 2},
    "streams": 4,
    "total_tokens": 128 * STEPS,
    "save_every_steps": EVERY,
    "schedule": "constant",
    "preempt_budget": 50,
    "fault_budget": 50,
}
FLOW = """
import sys
from tasks.artifact import open_artifact, produce
from tasks.train import stage
from tests.tasks.train.nano import known, nano_config
from tests.tasks.train.test_interruptions import NANO, RUN, ProcessesLauncher
stage.LAUNCHERS["processes"] = ProcessesLauncher(NANO)
with known():
    produce(sys.argv[1], stage.TRAIN, "nano", nano_config(**RUN), {"data": open_artifact(sys.argv[2])}, lease_ttl_s=2)
"""
WITH_NOTICE = ("notice of the metadata server", "SIGTERM to a host", "flow killed")
WITHOUT = ("SIGKILL of the first host", "SIGKILL of the second host")


class Flow:
    """A flow process that trains, started again whenever it is gone."""

    def __init__(self, store: Path, pack: Artifact, fake: FakeMetadata):
        self.store, self._fake = store, fake
        self._command = [sys.executable, "-c", textwrap.dedent(FLOW), str(store), pack.url]
        self._env = os.environ | {"PYTHONPATH": str(ROOT), HOST_VARIABLE: fake.host}
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(self._command, cwd=ROOT, env=self._env, stderr=subprocess.DEVNULL)

    def trainers(self) -> dict[int, psutil.Process]:
        """Those that run, by host."""
        found = {}
        for child in psutil.Process(self.process.pid).children() if self.process.poll() is None else ():
            with contextlib.suppress(psutil.Error):
                if "tests.tasks.train.nano" in child.cmdline():
                    found[int(child.environ()[HOST])] = child
        return found

    def resumed_at(self) -> list[int]:
        """The step that each trainer so far began at."""
        run_dir = scratch(self.store)
        marks = read_marks(run_dir / "goodput.jsonl") if run_dir and (run_dir / "goodput.jsonl").exists() else []
        return [mark["step"] for mark in marks if mark["what"] == "resume"]

    def until(self, condition) -> None:
        deadline = time.monotonic() + 300
        while not condition():
            assert time.monotonic() < deadline, "the run does not get on"
            if self.process.poll() is not None:
                self.process = self._start()
            time.sleep(0.002)

    def interrupt(self, kind: str) -> tuple[int, int]:
        """Do it, wait for the trainers after it; the step that was done, and the step that they began at."""
        self.until(lambda: len(self.trainers()) == 2)
        before, trainers = len(self.resumed_at()), self.trainers()
        done = steps_done(self.store)
        if kind == "notice of the metadata server":
            self._fake.set("preempted", "TRUE")
            gone = [process.pid for process in trainers.values()]
            self.until(lambda: not any(psutil.pid_exists(pid) and _runs(pid) for pid in gone))
            self._fake.set("preempted", "FALSE")  # the machine that comes then is another one
        elif kind == "flow killed":
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(list(trainers.values()), timeout=60)
        else:
            host, number = {
                "SIGTERM to a host": (random.randrange(2), signal.SIGTERM),
                "SIGKILL of the first host": (0, signal.SIGKILL),
                "SIGKILL of the second host": (1, signal.SIGKILL),
            }[kind]
            trainers[host].send_signal(number)
        self.until(lambda: len(self.resumed_at()) > before)
        return done, self.resumed_at()[-1]


def _runs(pid: int) -> bool:
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_interruptions_of_every_kind_change_nothing(tmp_path, text_pack, monkeypatch):
    monkeypatch.setitem(stage.LAUNCHERS, "processes", ProcessesLauncher(NANO))
    undisturbed = produce(str(tmp_path / "whole"), TRAIN, "nano", nano_config(**RUN), {"data": text_pack})
    seed = random.randrange(2**32)
    random.seed(seed)
    kinds = 4 * [*WITH_NOTICE, *WITHOUT]
    random.shuffle(kinds)
    report = []
    with FakeMetadata() as fake:
        flow = Flow(tmp_path / "struck", text_pack, fake)
        for kind in kinds:
            at = steps_done(flow.store) + random.randint(1, 14)
            flow.until(lambda: steps_done(flow.store) >= at)  # noqa: B023 - used at once
            done, resumed = flow.interrupt(kind)
            report.append({"kind": kind, "done": done, "resumed": resumed})
            print(f"seed {seed}:", report[-1], flush=True)
            assert done < STEPS - 20, "too late to say anything"
            # Steps may end between the count and the blow, never the other way round.
            assert resumed >= (done if kind in WITH_NOTICE else done - EVERY), report
        flow.until(lambda: flow.process.poll() == 0)
    (made,) = (path.parent for path in (tmp_path / "struck" / "train").glob("*/MANIFEST.json"))
    struck = open_artifact(str(made))
    assert struck.manifest.content_digest == undisturbed.manifest.content_digest, f"seed {seed}"
    assert struck.read_bytes("metrics.jsonl") == undisturbed.read_bytes("metrics.jsonl")
    assert struck.read_bytes("token_ledger.json") == undisturbed.read_bytes("token_ledger.json")
    ends = struck.manifest.extra["goodput"]["ends"]
    print(json.dumps({"seed": seed, "ends": ends, "goodput": struck.manifest.extra["goodput"]["seconds"]}))
    assert len(report) == 20
