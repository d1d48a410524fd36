"""Japanese clean rules: megabytes of text per CPU-second, ours against hojichar.

    python -m bench.clean [--docs FILE_OR_FOLDER] [--megabytes 45] [--rounds 5]

Ours is what the clean stage does to an extracted text: the Japanese pack's normaliser, language identification and all
Swallow v1 rules (9 sizes of character n-grams). The peer runs the nearest filters of hojichar, twice: `hojichar` with
one size of character n-grams, and `hojichar-9-ngrams` with as many as ours, which is the like-for-like comparison
(`ratio` is against the faster one all the same).

Timed are the documents that every engine keeps, so that all rules of each run on all of them; the time on all documents
(most of which some rule drops early) is given beside it. An engine is a process of its own, reads its texts before the
clock starts, and is charged its CPU time (user + system).
"""

import argparse
import gzip
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.harness import ROOT, alternate, parser, peer_python, publish, run_json, say

PEER = "hojichar==0.18.1"
SCRIPT = ROOT / "bench" / "peers" / "hojichar_clean.py"
DOCS = ROOT.parent / "shared" / "data" / "corpus-ja"  # development machines have it; elsewhere give --docs
WARM_UP = 20  # documents run before the clock starts


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--docs", type=Path, default=DOCS, help="JSONL (or .gz) with `text`, or a folder of such")
    options.add_argument("--megabytes", type=float, default=45.0, help="how much text to choose from")
    options.add_argument("--engine", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.engine:
        print(json.dumps(ours(chosen.engine)))
        return
    python = peer_python(PEER)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        sizes = prepare(chosen.docs, texts, int(chosen.megabytes * 1e6))
        engines = {
            "ours": lambda: run_json([sys.executable, "-m", "bench.clean", "--engine", texts]),
            "hojichar": lambda: run_json([python, SCRIPT, texts, "1"]),
            "hojichar-9-ngrams": lambda: run_json([python, SCRIPT, texts, "9"]),
        }
        first = {name: engine() for name, engine in engines.items()}
        common = sorted(set.intersection(*(set(run["kept"]) for run in first.values())))
        say(f"{len(sizes)} documents, {len(common)} of which every engine keeps")
        if not common:
            raise SystemExit(
                f"--docs {chosen.docs}: no document is kept by every engine, so there is nothing to time on."
            )
        lines = texts.read_text(encoding="utf-8").splitlines()
        texts.write_text("".join(lines[index] + "\n" for index in common), encoding="utf-8")
        results = alternate(engines, chosen.rounds)
    size = sum(sizes[index] for index in common)
    speeds = {name: [size / 1e6 / run["cpu_s"] for run in runs] for name, runs in results.items()}
    publish(
        "clean",
        "MB of text per CPU-second",
        speeds.pop("ours"),
        speeds,
        documents=len(common),
        megabytes=round(size / 1e6, 2),
        on_all={name: round(sum(sizes) / 1e6 / run["cpu_s"], 2) for name, run in first.items()},
        kept_of_all={name: f"{len(run['kept'])}/{len(sizes)}" for name, run in first.items()},
        rounds=chosen.rounds,
        peer=PEER,
        docs=str(chosen.docs),
    )


def ours(path: Path) -> dict[str, Any]:
    """CPU seconds and the documents kept by the Japanese rules of the clean stage."""
    from tasks.ingest.config import CleanConfig
    from tasks.ingest.engine import BATCH_ROWS
    from tasks.ingest.filters.verdicts import judge
    from tasks.ingest.language import identify
    from tasks.ingest.languages import LANGUAGES
    from tasks.ingest.texts import Texts

    config, pack = CleanConfig(language="ja"), LANGUAGES["ja"]

    def keeps(raws: list[str]) -> list[bool]:
        texts = [pack.normalise(raw) for raw in raws]
        labels = [
            identify(text, min_kana_fraction=config.min_kana_fraction, min_probability=config.min_language_probability)
            for text in texts
        ]
        right = [index for index, label in enumerate(labels) if label == pack.label]
        reasons = judge(Texts([texts[index] for index in right]), config.applied()).reasons
        kept = {index for index, reason in zip(right, reasons, strict=True) if reason is None}
        return [index in kept for index in range(len(raws))]

    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    keeps(texts[:WARM_UP])
    began = time.process_time()
    answers = [kept for start in range(0, len(texts), BATCH_ROWS) for kept in keeps(texts[start : start + BATCH_ROWS])]
    kept = [index for index, answer in enumerate(answers) if answer]
    return {"cpu_s": round(time.process_time() - began, 4), "kept": kept}


def prepare(source: Path, target: Path, size: int) -> list[int]:
    """Write texts of the source until they are `size` bytes, files in turn so that all kinds are there; their sizes."""
    files = sorted(source.glob("*.jsonl*")) if source.is_dir() else [source]
    if not files or not all(file.exists() for file in files):
        raise SystemExit(
            f"--docs {source} holds no JSONL files: the benchmark measures real Japanese text, which the repository "
            "does not carry. Give a JSONL file (or .gz) whose lines have a `text`, or a folder of such files."
        )
    sizes: list[int] = []
    with target.open("w", encoding="utf-8") as out:
        for text in itertools.chain.from_iterable(itertools.zip_longest(*map(_texts, files))):
            if text is None:
                continue
            out.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            sizes.append(len(text.encode()))
            if sum(sizes) >= size:
                break
    return sizes


def _texts(path: Path) -> Iterator[str]:
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)["text"]


if __name__ == "__main__":
    main()
