"""A tiny real stage for the proofs: numbered rows come in by shards, some are dropped, the rest are written.

Run as a program (`python -m tests.tasks.artifact.counting_stage STORE SHARDS SLEEP_S`) it makes the artifact, so that
a test can kill it.
"""

import hashlib
import json
import signal
import sys
import time
from pathlib import Path

import zstandard

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.config import StageConfig, operational_field
from tasks.storage import storage_for

ROWS = 20


class CountingConfig(StageConfig):
    """Knobs of the tiny stage."""

    shards: int = 6
    modulus: int = 3
    sleep_s: float = operational_field("Time a unit takes.", default=0.0)


def count(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
    """One unit a shard, and one that reads what the others wrote."""
    ws.expect_units(config.shards + 1)
    for shard in range(config.shards):
        key = f"shard/{shard}"
        if ws.unit_record(key) is not None:
            continue
        with ws.unit(key) as unit:
            kept = []
            for row in range(shard * ROWS, (shard + 1) * ROWS):
                unit.count(rows_in=1)
                if row % config.modulus:
                    kept.append(row)
                    unit.count(rows_out=1)
                else:
                    unit.drop("multiple", {"row": row})
            time.sleep(config.sleep_s)
            unit.write_json(f"rows/{shard:05}.json", kept)
            with unit.open(f"digests/{shard:05}.bin", rows=len(kept)) as file:
                file.write(b"".join(hashlib.sha256(str(row).encode()).digest() for row in kept))
    if ws.unit_record("total") is None:
        with ws.unit("total") as unit:
            files = sum((record.outputs for record in ws.units()), ())
            unit.write_json("total.json", sorted([entry.path, entry.sha256] for entry in files))
    ws.note(licences=["CC0-1.0"], shards=config.shards)


COUNT = Stage("count", "1", count, ("tests.tasks.artifact.counting_stage",))


def tree(url: str) -> dict[str, str]:
    """sha256 of every file in data/ and rejects/."""
    storage = storage_for(url)
    paths = [path for path in storage.find(url) if path.startswith(("data/", "rejects/"))]
    return {path: hashlib.sha256(storage.read(f"{url}/{path}")).hexdigest() for path in paths}


def rows_of(artifact: Artifact) -> tuple[list[int], list[int]]:
    """All rows that came out and all that were rejected, in no order."""
    out: list[int] = []
    for entry in artifact.files("rows/"):
        out += artifact.read_json(entry.path)
    rejected: list[int] = []
    for entry in artifact.manifest.rejects:
        data = storage_for(artifact.url).read(f"{artifact.url}/rejects/{entry.path}")
        lines = zstandard.ZstdDecompressor().decompressobj().decompress(data).decode().splitlines()
        rejected += [json.loads(line)["row"] for line in lines]
    return out, rejected


def main(store: str, shards: str, sleep_s: str) -> None:
    """Say that the run begins, then run."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    config = CountingConfig(shards=int(shards), sleep_s=float(sleep_s))
    print("begin", flush=True)
    artifact = produce(store, COUNT, "kill", config, {})
    print(artifact.url, flush=True)


if __name__ == "__main__":
    # The digest of the code must be that of the module, not of __main__; it is: both are this file.
    assert Path(__file__).name == "counting_stage.py"
    main(*sys.argv[1:])
