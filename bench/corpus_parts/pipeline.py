"""From files to files: the whole `clean` of English documents by Gopher's rules, ours and datatrove's.

Both read compressed shards, judge every document by the same two families of rules (quality and repetition), write the
kept ones compressed, and count the dropped by reason. Ours reads Parquet pages and also decodes, normalises, identifies
the language and writes a sidecar and the rejects; datatrove reads and writes its JSONL.gz. Each is a process of its own
and is charged all CPU seconds of itself and its children. Ours runs a second time with two workers, for the wall time.
datatrove, which takes minutes, gets the first shards only.
"""

import gzip
import json
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clean import prepare
from bench.corpus_parts.filters import DATATROVE, PEERS
from bench.corpus_parts.part import Options, Part
from bench.harness import alternate, peer_if_here, run_json, say

ENGLISH = "corpus-en"  # beside the folder of Japanese documents
SHARDS = 8
FEW = 2  # shards for datatrove
COPIES = 8  # of all documents, so that starting a process is not what is measured; each with other words in front


def run(options: Options) -> Part:
    """MB of UTF-8 per CPU-second from file to file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = _write(options.docs.with_name(ENGLISH), folder / "docs", int(options.megabytes * 1e6))
        (folder / "few").mkdir()
        for shard in sorted((folder / "docs").iterdir())[:FEW]:
            (folder / "few" / shard.name).hardlink_to(shard)
        engines = {
            f"{workers} workers": [sys.executable, "-m", __spec__.name, folder, str(workers)] for workers in (1, 2)
        }
        run_json([sys.executable, "-m", __spec__.name, folder, "mirror"])
        datatrove = peer_if_here(*DATATROVE, python="3.12", install=options.install)
        if datatrove:
            engines["datatrove"] = [datatrove, PEERS / "datatrove_pipeline.py", folder / "few", folder / "datatrove"]
        say(f"{sum(sizes):.1f} MB; {', '.join(engines)}")
        runs = alternate(
            {name: lambda command=command: run_json(command) for name, command in engines.items()}, options.rounds
        )
    megabytes = {name: sum(sizes[:FEW] if name == "datatrove" else sizes) for name in runs}
    speeds = {name: [megabytes[name] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    speeds = {"ours": speeds.pop("1 workers"), "ours, 2 workers": speeds.pop("2 workers"), **speeds}
    ratios = {}
    if datatrove:
        ratios["pipeline_vs_datatrove"] = round(
            statistics.median(speeds["ours"]) / statistics.median(speeds["datatrove"]), 2
        )
    wall = {name: statistics.median(each["wall_s"] for each in runs[name]) for name in ("1 workers", "2 workers")}
    return Part(
        speeds,
        ratios,
        {
            "megabytes": {name: round(size, 1) for name, size in megabytes.items()},
            "kept": {name: rounds[0]["kept"] for name, rounds in runs.items()},
            "two_workers_over_one_in_wall_time": round(wall["1 workers"] / wall["2 workers"], 2),
        },
    )


def _write(source: Path, folder: Path, size: int) -> list[float]:
    """The documents as JSONL.gz in shards, each copy told apart by its first words; the megabytes of each."""
    folder.mkdir()
    flat = folder.with_name("texts.jsonl")
    prepare(source, flat, size)
    texts = [json.loads(line)["text"] for line in flat.read_text(encoding="utf-8").splitlines()]
    sizes = [0.0] * SHARDS
    for shard in range(SHARDS):
        with gzip.open(folder / f"{shard:02}.jsonl.gz", "wt", encoding="utf-8", compresslevel=1) as out:
            for copy in range(COPIES):
                for number, text in enumerate(texts):
                    if (copy * len(texts) + number) % SHARDS == shard:
                        told = f"Copy {copy} of document {number}.\n{text}"
                        sizes[shard] += len(told.encode()) / 1e6
                        out.write(json.dumps({"id": f"{copy}-{number}", "text": told}, ensure_ascii=False) + "\n")
    return sizes


def ours(folder: Path, workers: str) -> dict[str, Any]:
    """Clean the mirrored documents, or (workers="mirror") mirror them first, which is not timed."""
    from tasks.artifact import produce
    from tasks.ingest.clean import CLEAN
    from tasks.ingest.config import CleanConfig, MirrorConfig, SourceConfig
    from tasks.ingest.mirror import MIRROR

    source = SourceConfig(
        kind="jsonl", name="docs", location=str(folder / "docs"), licence="MIT", attribution="bench", revision="1"
    )
    pages = produce(str(folder / "store"), MIRROR, "x", MirrorConfig(sources=(source,)), {})
    if workers == "mirror":
        return {"pages": pages.manifest.counts.out}
    config = CleanConfig(language="en", rules="gopher-en", workers=int(workers)).with_changes({"edits": {}})
    with tempfile.TemporaryDirectory(dir=folder) as store:
        began, before = time.perf_counter(), _cpu_s()
        made = produce(store, CLEAN, "x", config, {"pages": pages})
        return {
            "cpu_s": _cpu_s() - before,
            "wall_s": time.perf_counter() - began,
            "kept": made.manifest.counts.out,
        }


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


if __name__ == "__main__":
    print(json.dumps(ours(Path(sys.argv[1]), sys.argv[2])))
