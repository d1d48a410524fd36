"""Near-duplicate sketches, character 5-grams and 20 bands of 20 hashes: comparable text to band keys.

Peers do the same work by their own arithmetic, stated again here because it is a few lines each, so that no environment
is needed: `hojichar` 0.18 hands Python strings to rensa and joins digits of 20 values to a key; `datatrove` 0.10 takes
each shingle's xxhash64 through 400 multiply-adds modulo 2^61 - 1 in numpy; `datasketch` is the package itself. The last
two see only the first texts.

Ours is timed as it runs from a process's hundredth million characters on, with numba; `numpy` is before, or without it.
Facts beside it: with normalising (NFKC, case, blanks), and documents per CPU-second from band keys to components.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from bench.clean import prepare
from bench.corpus_parts.part import Options, Part
from bench.harness import alternate, run_json, say

BANDS, ROWS, NGRAM = 20, 20, 5
SLOW_MEGABYTES = {"datasketch": 1.0, "datatrove": 0.5}
COMPONENT_DOCUMENTS = 400_000
_MERSENNE = np.uint64((1 << 61) - 1)


def run(options: Options) -> Part:
    """MB of UTF-8 per CPU-second of each engine."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        prepare(options.docs, texts, int(options.megabytes * 1e6))
        names = ("ours", "numpy", "with_normalising", "hojichar", "datasketch", "datatrove")
        command = [sys.executable, "-m", "bench.corpus_parts.minhash"]
        engines: dict[str, Callable[[], Any]] = {
            name: lambda name=name: run_json([*command, name, str(texts)]) for name in (*names, "components")
        }
        say(f"minhash: {', '.join(engines)}")
        runs = alternate(engines, options.rounds)
    components = runs.pop("components")
    speeds = {name: [each["megabytes"] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    normalised, by_numpy = speeds.pop("with_normalising"), speeds.pop("numpy")
    facts = {
        "shape": f"{BANDS} bands x {ROWS} rows, {NGRAM}-grams",
        "with_normalising_mb_per_cpu_s": round(statistics.median(normalised), 1),
        "numpy_mb_per_cpu_s": round(statistics.median(by_numpy), 1),
        "components_docs_per_cpu_s": round(statistics.median(each["documents"] / each["cpu_s"] for each in components)),
        "peers": "arithmetic restated, but datasketch, which is the package",
        "slow_peers_mb": SLOW_MEGABYTES,
    }
    return Part(
        speeds,
        {f"minhash_vs_{peer}": round(middle["ours"] / middle[peer], 2) for peer in ("hojichar", "datatrove")},
        facts,
    )


def engine(name: str, path: Path) -> dict[str, Any]:
    """CPU seconds of one engine over the texts."""
    if name == "components":
        return components(COMPONENT_DOCUMENTS)
    from tasks.ingest import shingles
    from tasks.ingest.comparable import comparables
    from tasks.ingest.compiled import Load

    if name in ("ours", "with_normalising"):
        shingles._load = Load(-1)
        if not shingles._load.pays(1):
            raise SystemExit("numba is not installed, so numpy would be timed as ours: pip install -e '.[corpus]'")
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    comparables(texts[:2])
    if name != "with_normalising":
        texts = _first(comparables(texts), SLOW_MEGABYTES.get(name, 1e9))
    work = {
        **{"ours": _ours, "numpy": _ours, "with_normalising": _normalised},
        **{"hojichar": _hojichar, "datasketch": _datasketch, "datatrove": _datatrove},
    }[name]
    work(texts[:4])  # what is built at the first call
    began = time.process_time()
    made = work(texts)
    cpu_s = time.process_time() - began
    assert made == len(texts)
    return {"cpu_s": cpu_s, "megabytes": sum(len(text.encode()) for text in texts) / 1e6}


def _first(texts: list[str], megabytes: float) -> list[str]:
    size, found = 0, list[str]()
    for text in texts:
        if size >= megabytes * 1e6:
            break
        found.append(text)
        size += len(text.encode())
    return found


def _ours(texts: list[str]) -> int:
    from tasks.ingest.shingles import SKETCH_BATCH, band_keys, flat_shingles

    made = 0
    for start in range(0, len(texts), SKETCH_BATCH):
        made += len(band_keys(*flat_shingles(texts[start : start + SKETCH_BATCH], NGRAM), (BANDS, ROWS), 0))
    return made


def _normalised(texts: list[str]) -> int:
    from tasks.ingest.comparable import comparables
    from tasks.ingest.shingles import SKETCH_BATCH

    batches = range(0, len(texts), SKETCH_BATCH)
    return sum(_ours(comparables(texts[start : start + SKETCH_BATCH])) for start in batches)


def _hojichar(texts: list[str]) -> int:
    from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module

    made: list[list[str]] = []
    for text in texts:
        sketch = RMinHash(num_perm=BANDS * ROWS, seed=42)
        sketch.update([text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1)])
        values = np.asarray(sketch.digest(), np.uint32)
        keys = (xxhash.xxh128_hexdigest(values[i * ROWS : (i + 1) * ROWS].tobytes()) for i in range(BANDS))
        made.append([f"{i}+{key}" for i, key in enumerate(keys)])
    return len(made)


def _datasketch(texts: list[str]) -> int:
    from datasketch import MinHash

    made: list[list[bytes]] = []
    for text in texts:
        sketch = MinHash(num_perm=BANDS * ROWS, seed=1, hashfunc=xxhash.xxh32_intdigest)
        sketch.update_batch([text[i : i + NGRAM].encode() for i in range(len(text) - NGRAM + 1)])
        made.append([sketch.hashvalues[i * ROWS : (i + 1) * ROWS].tobytes() for i in range(BANDS)])
    return len(made)


def _datatrove(texts: list[str]) -> int:
    rng = np.random.RandomState(1)
    a = rng.randint(1, int(_MERSENNE), BANDS * ROWS, dtype=np.uint64)
    b = rng.randint(0, int(_MERSENNE), BANDS * ROWS, dtype=np.uint64)
    made: list[list[np.ndarray]] = []
    for text in texts:
        shingles = {text[i : i + NGRAM] for i in range(len(text) - NGRAM + 1)}
        hashes = np.array([xxhash.xxh64_intdigest(shingle.encode()) for shingle in shingles], np.uint64)
        if len(hashes):
            values = ((hashes[:, None] * a + b) % _MERSENNE).min(axis=0)
            made.append([np.sort(values[i * ROWS : (i + 1) * ROWS]) for i in range(BANDS)])
        else:
            made.append([])
    return len(made)


def components(documents: int) -> dict[str, Any]:
    """CPU seconds from the index of made-up documents, a fifth of them near another, to their components."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tasks.ingest.dedup.buckets import crowd
    from tasks.ingest.dedup.config import DedupConfig
    from tasks.ingest.dedup.corpus import DROP, Corpus
    from tasks.ingest.dedup.index import Shard

    rng, config = np.random.default_rng(0), DedupConfig(bands=BANDS, rows=ROWS)
    keys = rng.integers(0, 1 << 64, (documents, BANDS), np.uint64)
    near = rng.choice(documents, documents // 5, replace=False)
    shared = rng.random((len(near), BANDS)) < 0.5
    keys[near] = np.where(shared, keys[rng.integers(0, documents, len(near))], keys[near])
    with tempfile.TemporaryDirectory() as folder:
        shards = []
        for number, part in enumerate(np.array_split(keys, 8)):
            column = pa.Array.from_buffers(pa.binary(8 * BANDS), len(part), [None, pa.py_buffer(part.tobytes())])
            pq.write_table(pa.table({"bands": column}), f"{folder}/{number}.parquet", compression="zstd")
            shards.append(Shard(number, f"{number}.parquet", f"{folder}/{number}.parquet", ()))
        corpus = Corpus(tuple(shards), (documents // 8,) * 8, config, Path(folder))
        began = time.process_time()
        found = crowd(corpus, corpus.records("exact", DROP))
        cpu_s = time.process_time() - began
    assert len(found.docs) > documents // 5
    return {"cpu_s": cpu_s, "documents": documents}


if __name__ == "__main__":
    print(json.dumps(engine(sys.argv[1], Path(sys.argv[2]))))
