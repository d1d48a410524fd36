"""The whole tiny factory, killed in the middle of each stage: it ends as an undisturbed one would.

`kill -9` of the flow in each of its steps; of the trainer in each training; of vLLM in each step that asks a model; and
of server, worker, flow and everything below it once in each stage.

Text from a served model is not reproducible, so the undisturbed run is given the disturbed run's answers; from these
every artifact is made again, and must have the same fingerprint and the same bytes.

NESTLING_KILL_STORE names a folder for the stores and logs, which then are kept.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows.graph import Resolver, walk
from flows.registry import FLOWS
from tasks.artifact.manifest import MANIFEST
from tests.flows.conftest import start_server

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_BY_MODELS = ("synth", "instruct")
SOON_S = {"train": 3.0, "report": 0.0}  # a kill comes so long after a step was seen at work, at most
PATIENCE_S = 2 * 3600.0

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(3 * 3600)]


@dataclass
class Target:
    """One kill to make: of whom, while which artifact is being made."""

    victim: str  # flow, trainer, vllm, or everything
    stage: str
    name: str
    struck: bool = False
    passed: bool = False  # the step was over before it was struck


def targets() -> list[Target]:
    """Every step of the factory with each process that works on it."""
    found: list[Target] = []
    for step in walk(Resolver(FLOWS, {}).outputs("factory", "tiny")):
        victims = ["flow"]
        victims += ["trainer"] if step.stage.name == "train" else []
        victims += ["vllm"] if "teacher" in step.parents else []
        found += [Target(victim, step.stage.name, step.name) for victim in victims]
    return found


def begun(store: Path, target: Target) -> Path | None:
    """The folder of the target's artifact while it is being made."""
    for folder in store.glob(f"{target.stage}/{target.name}-*"):
        if not (folder / MANIFEST).exists() and (folder / "config.json").exists():
            return folder
    return None


def middle(store: Path, target: Target, answers_at_start: int) -> bool:
    """Whether the running program has done some of the step's work."""
    if target.stage == "train":
        lines = store.glob(f".scratch/{target.stage}-{target.name}-*/metrics.jsonl")
        return any(len(path.read_bytes().splitlines()) > 5 for path in lines)
    if target.stage in WRITTEN_BY_MODELS:
        return len(answers(store)) > answers_at_start + 5
    return True


def its_moment(store: Path, wanted: list[Target], answers_at_start: int, moment: random.Random) -> Target | None:
    """A target to strike now, after waiting for a random moment in it."""
    for target in wanted:
        if target.struck or not (folder := begun(store, target)) or not middle(store, target, answers_at_start):
            continue
        time.sleep(moment.uniform(0, SOON_S.get(target.stage, 0.5)))
        if not (folder / MANIFEST).exists():
            return target
        target.struck = target.passed = True
    return None


class Ledger:
    """When each answer was committed; one that is written again was asked twice."""

    def __init__(self, store: Path):
        self.store = store
        self.seen: dict[str, int] = {}
        self.looked = 0.0

    def look(self) -> None:
        if time.monotonic() - self.looked > 1.0:
            self.looked = time.monotonic()
            for path, written in answers(self.store).items():
                assert self.seen.setdefault(path, written) == written, f"{path} was asked twice"

    def close(self) -> None:
        final = answers(self.store)
        assert {path: final.get(path) for path in self.seen} == self.seen, "an answer was lost or asked again"


def answers(store: Path) -> dict[str, int]:
    """When each committed answer was written."""
    found: dict[str, int] = {}
    for path in store.glob(".answers/*/*/*.json"):
        with contextlib.suppress(FileNotFoundError):
            found[str(path)] = path.stat().st_mtime_ns
    return found


@dataclass
class Run:
    """One `python -m flows factory tiny`."""

    store: Path
    log: Path
    process: "subprocess.Popen[bytes]" = field(init=False)
    answers_at_start: int = field(init=False)

    def __post_init__(self) -> None:
        self.answers_at_start = len(answers(self.store))
        command = [sys.executable, "-m", "flows", "factory", "tiny", "--store", str(self.store)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out, start_new_session=True)

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def strike(self, victim: str) -> bool:
        """kill -9 one process; False when it is not there yet."""
        if victim == "flow":
            self.process.kill()
            return True
        wanted = {"trainer": "tasks.train", "vllm": "vllm.entrypoints.openai.api_server"}[victim]
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                command = process.cmdline()
                if wanted in command and "guard.py" not in " ".join(command):
                    process.kill()
                    return True
        return False


def disturbed(store: Path, log: Path, wanted: list[Target], moment: random.Random) -> None:
    """Run the factory until it ends well, with one kill for each target."""
    ledger = Ledger(store)
    began, starts = time.monotonic(), 0
    while True:
        run, starts = Run(store, log), starts + 1
        family: list[psutil.Process] = []
        while run.process.poll() is None:
            assert time.monotonic() - began < PATIENCE_S, f"not finished; see {log}"
            target = its_moment(store, wanted, run.answers_at_start, moment)
            if target is not None:
                family = run.family()
                target.struck = run.strike(target.victim)
                with log.open("a") as out:
                    out.write(f"---- killed the {target.victim} in {target.stage}/{target.name}: {target.struck}\n")
            ledger.look()
            time.sleep(0.03)
        if run.process.returncode == 0:
            return ledger.close()
        assert run.process.returncode == -signal.SIGKILL, f"the factory ended with {run.process.returncode}; see {log}"
        _, alive = psutil.wait_procs(family, timeout=15)
        assert not [process for process in alive if process.is_running()], "processes outlived the killed flow"
        assert starts <= len(wanted) + 1


def disturbed_in_the_ui(store: Path, folder: Path, wanted: list[Target], moment: random.Random) -> None:
    """Run factory/tiny from `make ui`, which loses its power once in each stage and is started again."""
    ledger, run_id = Ledger(store), ""
    began = time.monotonic()
    while True:
        server = start_server(folder, project=ROOT, NESTLING_STORE=str(store))
        answers_at_start = len(answers(store))
        run_id = run_id or server.start("factory/tiny")
        while server.run(run_id)["state_type"] != "COMPLETED":
            assert server.run(run_id)["state_type"] not in ("FAILED", "CANCELLED"), server.run(run_id)["state"]
            assert time.monotonic() - began < PATIENCE_S, "not finished"
            until = time.monotonic() + 2.0
            target = None
            while target is None and time.monotonic() < until:
                target = its_moment(store, wanted, answers_at_start, moment)
                ledger.look()
                time.sleep(0.03)
            if target is not None:
                target.struck = True
                top = psutil.Process(server.process.pid)
                everything = [*top.children(recursive=True), top]
                for process in reversed(everything):
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
                server.process.communicate()
                print(f"---- killed {len(everything)} processes in {target.stage}/{target.name}", flush=True)
                break
        else:
            server.stop()
            return ledger.close()


def manifests(store: Path) -> dict[str, Any]:
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_bytes())
        for path in store.glob(f"[!.]*/*/{MANIFEST}")
    }


def undisturbed(store: Path, beside: Path, log: Path) -> None:
    """Make everything again, given what the models answered."""
    shutil.copytree(store / ".answers", beside / ".answers")
    run = Run(beside, log)
    assert run.process.wait() == 0, f"see {log}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for the stores, kept when it is named."""
    folder = Path(os.environ.get("NESTLING_KILL_STORE") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def assert_hit(wanted: list[Target], seed: int) -> None:
    late = [f"{each.victim} in {each.stage}/{each.name}" for each in wanted if not each.struck or each.passed]
    print(f"seed {seed}: {len(wanted) - len(late)} of {len(wanted)} kills hit; over too soon: {late}")
    assert len(late) <= len(wanted) // 8, "the kills came too late to prove anything"


def assert_same(torn: dict[str, Any], calm: dict[str, Any]) -> None:
    """Same artifacts, same bytes; the report says when and how long, so its bytes are its own."""
    assert torn.keys() == calm.keys()
    for artifact, manifest in torn.items():
        for key in ("fingerprint", "counts", *(() if manifest["stage"] == "report" else ("content_digest",))):
            assert manifest[key] == calm[artifact][key], f"{artifact}: {key}"


def test_killed_in_each_step_the_factory_ends_as_if_undisturbed(place: Path):
    seed = random.randrange(2**32)
    wanted = targets()
    store, beside = place / "disturbed", place / "undisturbed"
    disturbed(store, place / "disturbed.log", wanted, random.Random(seed))
    assert_hit(wanted, seed)
    undisturbed(store, beside, place / "undisturbed.log")
    assert_same(manifests(store), manifests(beside))


def test_without_power_in_each_stage_the_run_of_the_ui_ends_as_if_undisturbed(place: Path):
    seed = random.randrange(2**32)
    first: dict[str, str] = {}
    for step in walk(Resolver(FLOWS, {}).outputs("factory", "tiny")):
        first.setdefault(step.stage.name, step.name)
    wanted = [Target("everything", stage, name) for stage, name in first.items()]
    store, beside = place / "ui-disturbed", place / "ui-undisturbed"
    disturbed_in_the_ui(store, place / "ui", wanted, random.Random(seed))
    assert_hit(wanted, seed)
    undisturbed(store, beside, place / "ui-undisturbed.log")
    assert_same(manifests(store), manifests(beside))
