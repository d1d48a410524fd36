"""SIGKILL at random moments of saving, copying and removing: what is found again is whole and not behind the ledger."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.train.remote import Remote
from tests.tasks.train.tiny_run import TinyRun, confirmed

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def saving():
    command = [sys.executable, "-m", "tests.tasks.train.saving_process"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        yield process
        process.stdin.close()


def killed_after(saving, steps: int, seconds: float, **run) -> None:
    """Start a run and kill it so long after it began to save so many steps."""
    saving.stdin.write(json.dumps(run) + "\n")
    saving.stdin.flush()
    said = [saving.stdout.readline().strip() for _ in range(1 + steps)]
    assert "ended" not in said, "the run failed by itself: what it restored was not what was saved, or a save failed"
    time.sleep(seconds)
    os.kill(int(said[0]), signal.SIGKILL)
    while saving.stdout.readline().strip() != "ended":
        pass


def survives(saving, tmp_path: Path, kills: int) -> int:
    """Kill so many times; returns how many kills left half an upload."""
    seed = random.randrange(2**32)
    moment = random.Random(seed)
    run_dir, remote = tmp_path / "run", str(tmp_path / "remote")
    changes = {"remote": remote, "keep": 2, "keep_every_steps": 7}
    promised, furthest, half, elsewhere = 0, 0, 0, 0
    for number in range(kills):
        steps = moment.randint(0, 5) if number else 5  # some are saved at first, so that there is what to lose
        seconds, delay_s = moment.uniform(0, 0.1), moment.choice([0.0, 0.002, 0.02])
        killed_after(saving, steps, seconds, run_dir=str(run_dir), remote=remote, delay_s=delay_s)
        copies = Remote(remote, 5)
        here = max(confirmed(TinyRun(run_dir, changes).spec), default=0)
        assert promised <= copies.newest(), f"seed {seed}: the ledger went back"
        assert here <= copies.newest(), f"seed {seed}: confirmed here before it was whole there"
        folders = {int(path.name) for path in Path(remote).glob("*") if path.name.isdigit()}
        half += bool(folders - set(copies.steps()))
        if number % 3 == 2:  # the machine is gone with the process
            shutil.rmtree(run_dir)
            elsewhere += copies.newest() > 0
        promised = copies.newest()
        reached = TinyRun(run_dir, changes).restore()  # compares the arrays with those of the step
        assert promised <= reached, f"seed {seed}: step {promised} was confirmed, {reached} was found"
        furthest = max(furthest, reached)
    assert furthest, f"seed {seed}: not one step was saved"
    assert kills < 30 or (furthest > kills / 2 and elsewhere), f"seed {seed}: hardly a step was made"
    return half


def test_after_kills_the_newest_confirmed_checkpoint_or_a_newer_one_is_found_whole(saving, tmp_path):
    survives(saving, tmp_path, kills=4)


@pytest.mark.slow
def test_after_sixty_kills_too_and_some_of_them_hit_an_upload(saving, tmp_path):
    assert survives(saving, tmp_path, kills=60) >= 3
