"""Memory does not grow with the corpus: ten times the documents, a fifth more of the resident set at most."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.artifact import open_artifact
from tasks.ingest.dedup.config import DedupConfig
from tests.tasks.ingest.dedup.small_corpora import document, documents, prose

MEMORY = 32 << 20
CONFIG = DedupConfig(
    bands=20, rows=10, heldout_fraction=0.01, max_source_loss=1.0, memory_bytes=MEMORY, workers=1, recall_pairs=50
)
SHARD = 1000
RUN = """
import sys
from pathlib import Path
from tasks.artifact import open_artifact, produce
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.stage import DEDUP

if __name__ == "__main__":
    docs = open_artifact(sys.argv[2])
    made = produce(sys.argv[1], DEDUP, "x", DedupConfig.model_validate_json(sys.argv[3]), {"docs": docs})
    status = Path("/proc/self/status").read_text().splitlines()
    print(made.url, next(int(line.split()[1]) for line in status if line.startswith("VmHWM")))
"""


def corpus(count: int) -> list[dict[str, str]]:
    """Half of the documents are near copies of another, a tenth exact ones, and a fifth hold a long template."""
    rng = random.Random(0)
    words = [prose(seed, rng.randrange(2, 5)) for seed in range(20_000)]
    template = "".join(rng.choices(words, k=120))
    texts: list[str] = []
    for number in range(count):
        kind = rng.random()
        if texts and kind < 0.5:
            other = texts[rng.randrange(len(texts))]
            cut = rng.randrange(len(other))
            texts.append(other[:cut] + words[number % len(words)] + other[cut + 3 :])
        elif texts and kind < 0.6:
            texts.append(texts[rng.randrange(len(texts))])
        else:
            texts.append(
                (template if kind < 0.8 else "") + "\n".join("".join(rng.choices(words, k=40)) for _ in "abcd")
            )
    return [document(i, text) for i, text in enumerate(texts)]


def peak_kb(folder: Path, count: int, config: DedupConfig) -> int:
    docs = documents(folder, corpus(count), shards=-(-count // SHARD))
    (folder / "run.py").write_text(RUN)
    command = [sys.executable, str(folder / "run.py"), str(folder), docs.url, config.model_dump_json()]
    root = Path(__file__).parents[4]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    url, peak = done.stdout.split()
    dropped = open_artifact(url).manifest.counts.dropped
    assert dropped["near_duplicate"] > count * 0.3
    assert dropped["exact_duplicate"] > count * 0.02  # copies of near copies count as those
    return int(peak)


@pytest.mark.slow
@pytest.mark.parametrize("lines", [None, {"min_documents": 3}], ids=["documents", "with lines"])
def test_ten_times_the_documents_take_a_fifth_more_memory_at_most(tmp_path, lines):
    config = CONFIG.with_changes({"lines": lines})
    base, more = (peak_kb(tmp_path / str(count), count, config) for count in (4000, 40_000))
    print(f"peak resident set: {base / 1024:.0f} MB for 4,000 documents, {more / 1024:.0f} MB for 40,000")
    assert more <= base * 1.2
    assert more * 1024 <= 300e6 + MEMORY
