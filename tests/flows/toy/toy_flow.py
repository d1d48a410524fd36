"""A flow with the shape of the real ones (preset, changes, progress, report, resume) that takes seconds."""

import json
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import Literal

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from pydantic import Field

from flows.changes import applied, changes_model
from flows.restarts import begin_again
from tasks.config import StageConfig


class Preset(StrEnum):
    TINY = "tiny"
    SLOW = "slow"


class CountConfig(StageConfig):
    steps: int = Field(ge=1, le=1000, description="How far to count.")
    pause: float = Field(default=0.2, ge=0, description="Seconds between steps.")
    unit: Literal["steps", "sheep"] = Field(default="steps", description="What is counted.")
    loud: bool = Field(default=False, description="Say each number.")


PRESETS = {Preset.TINY: CountConfig(steps=5), Preset.SLOW: CountConfig(steps=60, pause=1.0)}


class CountChanges(changes_model(CountConfig, PRESETS)):
    """Blank fields keep the preset's value."""


BLANK = CountChanges()


@task(cache_policy=NO_CACHE)
def count_up(config: CountConfig, state: Path) -> int:
    """Count, writing the position after each step; a second call goes on from there."""
    position = json.loads(state.read_text())["position"] if state.exists() else 0
    started_at = position
    progress = create_progress_artifact(progress=0.0, key="toy-progress", description=f"{config.steps} {config.unit}")
    while position < config.steps:
        time.sleep(config.pause)
        position += 1
        state.write_text(json.dumps({"position": position, "pid": os.getpid(), "run_count": flow_run.run_count}))
        update_progress_artifact(progress, progress=100.0 * position / config.steps)
    return started_at


@flow(name="toy")
def count(preset: Preset = Preset.TINY, changes: CountChanges = BLANK) -> dict[str, int]:
    """Count to a number.

    Args:
        preset: A row of the table.
        changes: Knobs to change; blank keeps the preset's value.
    """
    begin_again()
    config = PRESETS[preset].with_changes(applied(changes))
    folder = Path(os.environ["TOY_STATE"])
    state = folder / f"{flow_run.id}.json"
    started_at = count_up(config, state)
    (folder / f"{flow_run.id}.config.json").write_text(config.model_dump_json())
    create_markdown_artifact(f"counted {config.steps} {config.unit} from {started_at}", key="toy-report")
    return {"counted": config.steps, "started_at": started_at}
