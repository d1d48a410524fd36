"""The whole tiny factory, killed in the middle of each stage: it ends as an undisturbed one would.

`kill -9` of the flow in each of its steps; of the trainer in each training; of vLLM in each step that asks a model.
Text from a served model is not reproducible, so the undisturbed run is given the disturbed run's answers: every
artifact that no model wrote is made again beside them and must have the same fingerprint and the same bytes.

NESTLING_KILL_STORE keeps the store (and goes on with a finished one).
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

import psutil
import pytest

from flows.graph import Resolver, walk
from flows.registry import FLOWS
from tasks.artifact.manifest import MANIFEST

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_BY_MODELS = ("synth", "instruct")
SOON_S = 3.0  # after a step was seen to begin, at most; quick steps are over earlier
PATIENCE_S = 3600.0

pytestmark = [pytest.mark.slow, pytest.mark.vllm, pytest.mark.timeout(3 * 3600)]


@dataclass
class Target:
    """One kill to make: of whom, while which artifact is being made."""

    victim: str  # flow, trainer or vllm
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


def middle(run: "Run", target: Target) -> bool:
    """Whether this run has done some of the step's work; it is not over yet."""
    if target.stage == "train":
        lines = run.store.glob(f".scratch/{target.stage}-{target.name}-*/metrics.jsonl")
        return any(len(path.read_bytes().splitlines()) > 5 for path in lines)
    if target.stage in WRITTEN_BY_MODELS:
        return len(answers(run.store)) > run.answers_at_start + 5
    return True


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


def disturbed(store: Path, log: Path, wanted: list[Target], moment: random.Random) -> dict[str, int]:
    """Run the factory until it ends well, with one kill for each target; returns when each answer was first seen."""
    seen: dict[str, int] = {}
    began, looked, starts = time.monotonic(), 0.0, 0
    while True:
        run, starts = Run(store, log), starts + 1
        family: list[psutil.Process] = []
        while run.process.poll() is None:
            assert time.monotonic() - began < PATIENCE_S, f"not finished; see {log}"
            for target in wanted:
                if target.struck or not (folder := begun(store, target)) or not middle(run, target):
                    continue
                time.sleep(moment.uniform(0, SOON_S if target.stage == "train" else SOON_S / 6))
                family = run.family()
                if (folder / MANIFEST).exists():
                    target.struck = target.passed = True
                elif run.strike(target.victim):
                    target.struck = True
                    with log.open("a") as out:
                        out.write(f"---- killed the {target.victim} in {target.stage}/{target.name}\n")
                break
            if time.monotonic() - looked > 1.0:
                looked = time.monotonic()
                for path, written in answers(store).items():
                    assert seen.setdefault(path, written) == written, f"{path} was asked twice"
            time.sleep(0.03)
        if run.process.returncode == 0:
            return seen
        assert run.process.returncode == -signal.SIGKILL, f"the factory ended with {run.process.returncode}; see {log}"
        _, alive = psutil.wait_procs(family, timeout=15)
        assert not [process for process in alive if process.is_running()], "processes outlived the killed flow"
        assert starts <= len(wanted) + 1


def manifests(store: Path) -> dict[str, dict[str, object]]:
    return {
        f"{path.parent.parent.name}/{path.parent.name}": json.loads(path.read_bytes())
        for path in store.glob(f"[!.]*/*/{MANIFEST}")
    }


def undisturbed(store: Path, beside: Path, log: Path) -> None:
    """Make everything again that no model wrote, given what the models wrote."""
    for stage in WRITTEN_BY_MODELS:
        shutil.copytree(store / stage, beside / stage)
    shutil.copytree(store / ".answers", beside / ".answers")
    run = Run(beside, log)
    assert run.process.wait() == 0, f"see {log}"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder for the stores, kept when it is named."""
    return Path(os.environ.get("NESTLING_KILL_STORE") or tmp_path)


def test_killed_in_the_middle_of_each_stage_the_factory_ends_as_if_undisturbed(place: Path):
    seed = random.randrange(2**32)
    wanted = targets()
    store, beside = place / "disturbed", place / "undisturbed"
    seen = disturbed(store, place / "disturbed.log", wanted, random.Random(seed))
    late = [
        f"{target.victim} in {target.stage}/{target.name}" for target in wanted if not target.struck or target.passed
    ]
    print(f"seed {seed}: {len(wanted) - len(late)} of {len(wanted)} kills hit; over too soon: {late}")
    assert len(late) <= len(wanted) // 8, "the kills came too late to prove anything"
    final = answers(store)
    assert {path: final.get(path) for path in seen} == seen, "a committed answer was lost or asked again"

    undisturbed(store, beside, place / "undisturbed.log")
    calm, torn = manifests(beside), manifests(store)
    assert calm.keys() == torn.keys()
    for artifact, manifest in torn.items():
        for key in ("fingerprint", "content_digest", "counts"):
            assert manifest[key] == calm[artifact][key], f"{artifact}: {key}"
