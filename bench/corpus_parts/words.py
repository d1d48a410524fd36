"""NG words: ours by hyperscan and by tables against hojichar's alternation, with hojichar's own 1,472 words.

All get the texts that hojichar keeps, because it stops at the first word; ours reads every text to its end and counts.
"""

import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clean import prepare
from bench.corpus_parts.part import Options, Part
from bench.harness import ROOT, alternate, peer_if_here, run_json

HOJICHAR = ("hojichar==0.18.1",)
PEER = ROOT / "bench" / "peers" / "hojichar_lists.py"
MOST_MEGABYTES = 12.0  # hojichar reads two a second


def run(options: Options) -> Part:
    """MB of UTF-8 per CPU-second of each engine."""
    hojichar = peer_if_here(*HOJICHAR, install=options.install)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        prepare(options.docs, texts, int(min(options.megabytes, MOST_MEGABYTES) * 1e6))
        lists = ["inappropriate-ja-offensive,inappropriate-ja-sexual"]
        commands: dict[str, list[str | Path]] = {}
        if hojichar:
            commands["hojichar"] = [hojichar, PEER, "DiscardAdultContentJa", texts]
            first = run_json(commands["hojichar"])
            lines = texts.read_text(encoding="utf-8").splitlines()
            texts.write_text("".join(lines[place] + "\n" for place in first["kept"]), encoding="utf-8")
            digest = hashlib.sha256(Path(first["words"]).read_bytes()).hexdigest()
            lists = [f"{first['words']}#sha256={digest}"]
        for engine in ("automaton", "tables"):
            commands[engine] = [sys.executable, "-m", "bench.corpus_parts.words", engine, texts, *lists]
        runs = alternate({name: lambda line=line: run_json(line) for name, line in commands.items()}, options.rounds)
    speeds = {name: [each["megabytes"] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    middle = {name: round(statistics.median(values), 2) for name, values in speeds.items()}
    speeds["ours"] = speeds.pop("automaton")
    ratios = {"ng_vs_hojichar": round(middle["automaton"] / middle["hojichar"], 1)} if hojichar else {}
    return Part(speeds, ratios, {"mb_per_cpu_s": middle, "megabytes": runs["tables"][0]["megabytes"]})


def ours(engine: str, path: Path, lists: list[str]) -> dict[str, Any]:
    """CPU seconds to find all words in all texts."""
    from tasks.ingest.filters.ng_words import scan_of
    from tasks.ingest.lists import resolved
    from tasks.ingest.texts import Texts

    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    scan = scan_of(tuple(resolved(reference) for given in lists for reference in given.split(",")))
    find = {"automaton": scan.by_automaton, "tables": scan.by_tables}[engine]
    list(find(texts[:8]))
    began = time.process_time()
    found = sum(1 for part in Texts(texts).parts() for _ in find(part.strings))
    seconds = time.process_time() - began
    return {"cpu_s": seconds, "megabytes": sum(len(text.encode()) for text in texts) / 1e6, "found": found}


if __name__ == "__main__":
    print(json.dumps(ours(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])))
