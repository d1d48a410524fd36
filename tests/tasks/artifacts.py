"""Finished artifacts made from plain bytes and tables, for tests that need parents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import Field

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.config import StageConfig


class FreeConfig(StageConfig):
    """Any facts, as the config of a stand-in stage."""

    facts: dict[str, Any] = Field(default={})


def artifact(
    store: Path,
    stage: str,
    name: str,
    files: Mapping[str, bytes | pa.Table | Path],
    *,
    parents: Mapping[str, Artifact] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    drops: Mapping[str, int] | None = None,
) -> Artifact:
    """An artifact of the real store with these files (paths under data/)."""

    def run(ws: Workspace, config: FreeConfig, inputs: dict[str, Artifact]) -> None:
        with ws.unit("all") as unit:
            for path, content in files.items():
                if isinstance(content, pa.Table):
                    unit.write_parquet(path, content)
                    unit.count(content.num_rows, content.num_rows)
                elif isinstance(content, Path):
                    unit.add_file(path, content)
                else:
                    unit.write_bytes(path, content)
            for reason, count in (drops or {}).items():
                for i in range(count):
                    unit.count(rows_in=1)
                    unit.drop(reason, {"id": f"{i}", "text": "dropped"})
        ws.note(**(notes or {}))

    config = FreeConfig(facts=dict(facts or {}))
    stand_in = Stage(name=stage, version="1", run=run, code=("tasks.licences",))
    return produce(str(store), stand_in, name, config, dict(parents or {}))
