"""The stage with real trainer processes, and real signals at moments that nobody chose."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tasks.artifact import Artifact, produce
from tasks.errors import ConfigError
from tasks.train import stage
from tasks.train.goodput import read_marks
from tasks.train.journal import TIMING
from tasks.train.launchers.local import LocalLauncher
from tasks.train.preemption import HOST_VARIABLE
from tasks.train.stage import TRAIN
from tests.tasks.train.fake_metadata import FakeMetadata
from tests.tasks.train.nano import nano_config
from tests.tasks.training_data import make_artifact

ROOT = Path(__file__).resolve().parents[3]
STEPS = 120
LONG = {"total_tokens": 128 * STEPS, "save_every_steps": 10, "fault_budget": 50, "preempt_budget": 50}
NANO = (sys.executable, "-m", "tests.tasks.train.nano")


@pytest.fixture(autouse=True)
def nano_trainers(monkeypatch):
    monkeypatch.setitem(stage.LAUNCHERS, "local", LocalLauncher(NANO))


def scratch(store: Path) -> Path | None:
    return next((store / ".scratch").glob("train-*"), None)


def steps_done(store: Path) -> int:
    run_dir = scratch(store)
    try:
        return len((run_dir / "metrics.jsonl").read_text().splitlines()) if run_dir else 0
    except FileNotFoundError:
        return 0


def trainer_pid(store: Path) -> int | None:
    """The process that holds the run."""
    run_dir = scratch(store)
    try:
        return int((run_dir / "trainer.lock").read_text()) if run_dir else None
    except (FileNotFoundError, ValueError):
        return None


class Killer(threading.Thread):
    """Sends one signal to the trainer when it has done so many steps."""

    def __init__(self, store: Path, step: int, number: int):
        super().__init__(daemon=True)
        self.store, self.step, self.number, self.hit = store, step, number, False

    def run(self) -> None:
        until = time.monotonic() + 120
        while time.monotonic() < until:
            pid = trainer_pid(self.store)
            if pid and steps_done(self.store) >= self.step:
                os.kill(pid, self.number)
                self.hit = True
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text_pack) -> Artifact:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stage.LAUNCHERS, "local", LocalLauncher(NANO))
        store = tmp_path_factory.mktemp("undisturbed")
        return produce(str(store), TRAIN, "nano", nano_config(**LONG), {"data": text_pack})


def test_artifact_says_what_was_done_and_leaves_no_times_in_its_content(undisturbed):
    facts = undisturbed.manifest.extra
    assert (undisturbed.manifest.tokens, facts["trainer_starts"], facts["timings"]["steps"]) == (128 * STEPS, 1, STEPS)
    spent = facts["goodput"]
    assert (spent["launches"], spent["ends"], spent["seconds"]["lost"]) == (1, {"0": 1}, 0)
    assert sum(spent["seconds"].values()) == pytest.approx(spent["total_seconds"], abs=0.01)
    assert 0 < spent["total_seconds"] <= undisturbed.manifest.seconds
    assert min(spent["seconds"][cause] for cause in ("step", "compile", "start_up", "save_stall")) > 0
    assert (facts["steps_left_out"], undisturbed.manifest.cost) == (0, 0)
    lines = [json.loads(line) for line in undisturbed.read_bytes("metrics.jsonl").splitlines()]
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert not set(TIMING) & set(lines[0])
    assert facts["final_loss"] == lines[-1]["loss"] < 2.5
    assert {entry.path.split("/")[0] for entry in undisturbed.files()} == {
        "metrics.jsonl",
        "model",
        "token_ledger.json",
    }


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_trainer_that_is_struck_down_is_started_again_and_ends_the_same(tmp_path, text_pack, undisturbed, number):
    killer = Killer(tmp_path, 37, number)
    killer.start()
    made = produce(str(tmp_path), TRAIN, "nano", nano_config(**LONG), {"data": text_pack})
    killer.join()
    assert killer.hit
    assert made.manifest.extra["trainer_starts"] == 2
    assert made.manifest.content_digest == undisturbed.manifest.content_digest


class Notifier(threading.Thread):
    """Gives a trainer notice in one way or another when it has done so many steps, again and again."""

    def __init__(self, store: Path, steps: list[int], give):
        super().__init__(daemon=True)
        self.store, self.steps, self.give, self.given = store, steps, give, 0

    def run(self) -> None:
        until, told = time.monotonic() + 600, None
        while self.given < len(self.steps) and time.monotonic() < until:
            pid = trainer_pid(self.store)
            if pid and pid != told and steps_done(self.store) >= self.steps[self.given]:
                self.give(pid)
                told = pid
                self.given += 1
            time.sleep(0.002)


def take_note(tmp_path, text_pack, steps: list[int], give, **changes) -> Artifact:
    """Train with notices after so many steps."""
    notifier = Notifier(tmp_path, steps, give)
    notifier.start()
    made = produce(str(tmp_path), TRAIN, "nano", nano_config(**LONG, **changes), {"data": text_pack})
    notifier.join(1)
    assert notifier.given == len(steps)
    return made


def require_nothing_lost(made: Artifact, undisturbed: Artifact, notices: int) -> None:
    assert made.manifest.content_digest == undisturbed.manifest.content_digest
    spent = made.manifest.extra["goodput"]
    assert (spent["ends"], spent["seconds"]["lost"]) == ({"0": 1, "75": notices}, 0), "no finished step is done again"


def test_a_notice_of_the_metadata_server_saves_the_step_and_says_so(tmp_path, text_pack, undisturbed, monkeypatch):
    with FakeMetadata() as fake:
        monkeypatch.setenv(HOST_VARIABLE, fake.host)

        def give(_: int) -> None:
            fake.set("preempted", "TRUE")

        forget = threading.Thread(target=lambda: (wait_for_end(tmp_path), fake.set("preempted", "FALSE")), daemon=True)
        forget.start()
        made = take_note(tmp_path, text_pack, [41], give)
    require_nothing_lost(made, undisturbed, 1)


def wait_for_end(store: Path) -> None:
    """Until a trainer has said why it ended; the machine that comes then is another one."""
    while True:
        run_dir = scratch(store)
        if run_dir is not None and (run_dir / "goodput.jsonl").exists():
            reasons = [mark.get("reason", "") for mark in read_marks(run_dir / "goodput.jsonl")]
            if any("says preempted=TRUE" in reason for reason in reasons):
                return
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["signal", "file"])
def test_notices_at_random_moments_lose_no_finished_step(tmp_path, text_pack, undisturbed, source):
    file = tmp_path / "notice"

    def give(pid: int) -> None:
        if source == "signal":
            os.kill(pid, signal.SIGTERM)
        else:
            file.write_text(str(time.time()))

    steps = sorted(random.Random(source).sample(range(1, STEPS - 20), 5))
    made = take_note(tmp_path, text_pack, steps, give, preemption_file=str(file))
    require_nothing_lost(made, undisturbed, 5)


FLOW = """
import sys
from tasks.artifact import open_artifact, produce
from tasks.train import stage
from tasks.train.launchers.local import LocalLauncher
from tests.tasks.train.nano import known, nano_config
from tests.tasks.train.test_stage import LONG, NANO
stage.LAUNCHERS["local"] = LocalLauncher(NANO)
with known():
    produce(sys.argv[1], stage.TRAIN, "nano", nano_config(**LONG), {"data": open_artifact(sys.argv[2])}, lease_ttl_s=2)
"""


def start_flow(store: Path, text_pack: Artifact) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-c", textwrap.dedent(FLOW), str(store), text_pack.url]
    return subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_flow_that_is_struck_down_goes_on_where_it_was(tmp_path, text_pack, undisturbed, number):
    flow = start_flow(tmp_path, text_pack)
    until = time.monotonic() + 120
    while steps_done(tmp_path) < 25:
        assert flow.poll() is None
        assert time.monotonic() < until
        time.sleep(0.005)
    flow.send_signal(number)
    flow.wait()
    made = produce(str(tmp_path), TRAIN, "nano", nano_config(**LONG), {"data": text_pack}, lease_ttl_s=2)
    assert made.manifest.content_digest == undisturbed.manifest.content_digest
    assert made.manifest.extra["trainer_starts"] == 1, "the trainer of the dead flow was gone"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_signals_at_random_moments_change_nothing(tmp_path, text_pack, undisturbed):
    random.seed(20)
    for trial in range(5):
        store = tmp_path / str(trial)
        store.mkdir()
        flow, struck = None, 0
        while struck < 4:
            if flow is None or flow.poll() is not None:
                if flow is not None and flow.returncode == 0:
                    break
                flow = start_flow(store, text_pack)
            before = steps_done(store)
            wanted = before + random.randint(1, 30)
            until = time.monotonic() + 60
            while steps_done(store) < min(wanted, STEPS - 1) and flow.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            target = random.choice(["trainer", "flow"])
            pid = trainer_pid(store) if target == "trainer" else flow.pid
            try:
                os.kill(pid or flow.pid, random.choice([signal.SIGKILL, signal.SIGTERM]))
            except ProcessLookupError:
                continue
            struck += 1
            if target == "flow":
                flow.wait()
        assert flow is not None
        flow.wait()
        made = produce(str(store), TRAIN, "nano", nano_config(**LONG), {"data": text_pack}, lease_ttl_s=2)
        assert made.manifest.content_digest == undisturbed.manifest.content_digest


def test_inputs_that_are_missing_or_wrong_are_explained(tmp_path, text_pack, tokenizer_artifact):
    with pytest.raises(ConfigError, match="have no data"):
        stage.resolve(tmp_path, nano_config(), {})
    with pytest.raises(ConfigError, match="has no model/"):
        stage.resolve(tmp_path, nano_config(), {"data": text_pack, "base": text_pack})
    with pytest.raises(ConfigError, match="which tokenizer counted it"):
        stage.resolve(tmp_path, nano_config(), {"data": make_artifact(tmp_path, "x", {"train/0.parquet": []})})
    spec = stage.resolve(tmp_path, nano_config(), {"data": text_pack})
    assert spec.tokenizer_dir == tokenizer_artifact.local_dir(), "found through the records' parents"


def test_a_missing_accelerator_is_said_before_anything_starts(tmp_path, text_pack, monkeypatch):
    monkeypatch.setattr("tasks.train.config._accelerators", list)
    with pytest.raises(ConfigError, match="preset `tiny`"):
        produce(str(tmp_path), TRAIN, "x", nano_config(needs="tpu v6e-8"), {"data": text_pack})
