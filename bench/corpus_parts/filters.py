"""Japanese quality rules (Swallow v1): ours by numpy and compiled, the slow oracle, hojichar and datatrove.

All engines get the same normalised texts: those that ours and hojichar both keep, so that every rule of each runs on
every text. hojichar runs its nearest filters with as many sizes of character n-grams as ours; datatrove its Gopher
rules by Japanese words (spaCy and Sudachi), on the first texts only, because it needs ten seconds for a megabyte.
"""

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clean import prepare
from bench.corpus_parts.part import Options, Part
from bench.harness import ROOT, alternate, peer_if_here, run_json, say

HOJICHAR = ("hojichar==0.18.1",)
DATATROVE = ("datatrove[processing]==0.10.1", "spacy[ja]==3.8.18", "orjson==3.13.0")
PEERS = ROOT / "bench" / "peers"
SLOW_MEGABYTES = {"oracle": 1.5, "datatrove": 0.25}  # engines that see only the first texts
WARM_UP = 8
BY_LISTS = ("url", "ng_words")  # see bench/corpus_parts/words.py: the peers' quality filters have no lists


def run(options: Options) -> Part:
    """MB of UTF-8 per CPU-second of each engine."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        prepare(options.docs, texts, int(options.megabytes * 1e6))
        _keep(texts, run_json(_ours("compiled", texts))["kept"])
        engines: dict[str, list[str | Path]] = {name: _ours(name, texts) for name in ("numpy", "compiled", "oracle")}
        hojichar = peer_if_here(*HOJICHAR, install=options.install)
        if hojichar:
            engines["hojichar"] = [hojichar, PEERS / "hojichar_quality.py", texts]
            _keep(texts, run_json(engines["hojichar"])["kept"])
        lines = texts.read_text(encoding="utf-8").splitlines()
        if not lines:
            raise SystemExit(f"--docs {options.docs}: no text is kept by the rules, so there is nothing to time on.")
        datatrove = peer_if_here(*DATATROVE, python="3.12", install=options.install)
        if datatrove:
            engines["datatrove"] = [datatrove, PEERS / "datatrove_quality.py", texts]
        for name, megabytes in SLOW_MEGABYTES.items():
            if name in engines:
                engines[name][-1] = _first(texts, megabytes)
        say(f"{len(lines)} texts that all keep; {', '.join(engines)}")
        runs = alternate(
            {name: lambda command=command: run_json(command) for name, command in engines.items()}, options.rounds
        )
    speeds = {name: [each["megabytes"] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    speeds["ours"] = max(speeds.pop("numpy"), speeds.pop("compiled"), key=statistics.median)
    best = max(middle["numpy"], middle["compiled"])
    named = {"hojichar": "quality_vs_hojichar", "datatrove": "quality_vs_datatrove_ja"}
    facts: dict[str, Any] = {
        "texts": len(lines),
        "mb_per_cpu_s": {name: round(value, 2) for name, value in middle.items()},
        **{
            f"{step}_mb_per_cpu_s": {
                name: round(statistics.median(each["megabytes"] / each[f"{step}_s"] for each in runs[name]), 1)
                for name in ("numpy", "compiled")
            }
            for step in ("rules", "ngrams")
        },
    }
    return Part(
        speeds, {ratio: round(best / middle[peer], 2) for peer, ratio in named.items() if peer in middle}, facts
    )


def ours(engine: str, path: Path) -> dict[str, Any]:
    """CPU seconds of all rules, of the cheap ones and of the n-grams; the texts that are kept."""
    from tasks.ingest.compiled import Load
    from tasks.ingest.filters import ngrams, verdicts
    from tasks.ingest.filters.presets import RULES
    from tasks.ingest.languages import LANGUAGES
    from tasks.ingest.texts import Texts

    texts = [LANGUAGES["ja"].normalise(text) for text in _read(path)]
    rules = {name: rules for name, rules in RULES["swallow-v1"].items() if name not in BY_LISTS}
    if engine == "oracle":
        from tests.tasks.ingest.filters.oracle import ORACLE

        began = time.process_time()
        kept = [i for i, text in enumerate(texts) if not any(h for n in rules for _, h in ORACLE[n](text, rules[n])[1])]
        return _report(texts, time.process_time() - began, kept)
    ngrams._load = Load(-1 if engine == "compiled" else 1 << 62)
    cheap = {name: thresholds for name, thresholds in rules.items() if name != "character_ngrams"}
    costly = {"character_ngrams": rules["character_ngrams"]}
    verdicts.judge(Texts(texts[:WARM_UP]), rules, everything=True)
    seconds = []
    for applied in (rules, cheap, costly):
        fresh = Texts(texts)
        began = time.process_time()
        found = verdicts.judge(fresh, applied, everything=True)
        seconds.append(time.process_time() - began)
        if applied is rules:
            kept = [index for index, reason in enumerate(found.reasons) if reason is None]
    return _report(texts, seconds[0], kept) | {"rules_s": seconds[1], "ngrams_s": seconds[2]}


def _report(texts: list[str], cpu_s: float, kept: list[int]) -> dict[str, Any]:
    return {"cpu_s": cpu_s, "megabytes": sum(len(text.encode()) for text in texts) / 1e6, "kept": kept}


def _ours(engine: str, texts: Path) -> list[str | Path]:
    return [sys.executable, "-m", "bench.corpus_parts.filters", engine, texts]


def _read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]


def _keep(path: Path, places: list[int]) -> None:
    """Leave only these lines in a file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(lines[place] + "\n" for place in places), encoding="utf-8")


def _first(path: Path, megabytes: float) -> Path:
    """A file of the first lines, up to so many megabytes."""
    head = path.with_name(f"first-{megabytes}.jsonl")
    kept, size = [], 0
    for line in path.read_text(encoding="utf-8").splitlines():
        kept.append(line + "\n")
        size += len(json.loads(line)["text"].encode())
        if size >= megabytes * 1e6:
            break
    head.write_text("".join(kept), encoding="utf-8")
    return head


if __name__ == "__main__":
    print(json.dumps(ours(sys.argv[1], Path(sys.argv[2]))))
