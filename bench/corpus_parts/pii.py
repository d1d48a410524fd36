"""Personal data and secrets: ours (13 patterns behind hints, or gates) against them one by one, and hojichar's two.

Texts are real documents with personal data planted in every fifth. hojichar masks telephone numbers and mail only.
"""

import json
import random
import re
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
PLANTED = (
    "連絡先は taro@nestling.jp です。",
    "電話は03-1234-5678です。",
    "０９０－１２３４－５６７８へどうぞ。",
    "〒100-0001 東京都千代田区千代田1-1",
    "個人番号は1234 5678 9018です。",
    "カード番号は4111-1111-1111-1111です。",
    "鍵は AKIAIOSFODNN7EXAMPLE です。",
)


def run(options: Options) -> Part:
    """MB of UTF-8 per CPU-second of each engine."""
    hojichar = peer_if_here(*HOJICHAR, install=options.install)
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.jsonl"
        prepare(options.docs, texts, int(options.megabytes * 1e6))
        plant(texts)
        commands: dict[str, list[str | Path]] = {
            engine: [sys.executable, "-m", "bench.corpus_parts.pii", engine, texts]
            for engine in ("hints", "gates", "one-by-one")
        }
        if hojichar:
            commands["hojichar"] = [hojichar, PEER, "MaskPersonalInformation", texts]
        runs = alternate({name: lambda line=line: run_json(line) for name, line in commands.items()}, options.rounds)
    speeds = {name: [each["megabytes"] / each["cpu_s"] for each in rounds] for name, rounds in runs.items()}
    middle = {name: round(statistics.median(values), 2) for name, values in speeds.items()}
    speeds["ours"] = speeds.pop("hints")
    facts = {"mb_per_cpu_s": middle, "masked": runs["hints"][0]["masked"], "megabytes": runs["hints"][0]["megabytes"]}
    return Part(speeds, {}, facts)


def plant(path: Path) -> None:
    """Put one line of PLANTED into every fifth text."""
    rng, lines = random.Random(0), path.read_text(encoding="utf-8").splitlines()
    for place in range(0, len(lines), 5):
        parts = json.loads(lines[place])["text"].split("\n")
        parts.insert(rng.randrange(len(parts) + 1), rng.choice(PLANTED))
        lines[place] = json.dumps({"text": "\n".join(parts)}, ensure_ascii=False)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def ours(engine: str, path: Path) -> dict[str, Any]:
    """CPU seconds to mask (or, one by one, to find without checks) what the Japanese pack looks for."""
    from tasks.ingest.edits import pii_hints
    from tasks.ingest.edits.pii import PiiRules, edit
    from tasks.ingest.languages import LANGUAGES

    if engine == "hints" and not pii_hints.HAS_HYPERSCAN:
        raise SystemExit("hyperscan is not installed, so gates would be timed as hints: pip install -e '.[corpus]'")
    pii_hints.HAS_HYPERSCAN = engine == "hints"
    texts = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    rules = LANGUAGES["ja"].edits["pii"]
    assert isinstance(rules, PiiRules)
    patterns = [re.compile(pattern.pattern) for pattern in rules.patterns]
    edit(texts[:8], rules)
    began, masked = time.process_time(), {}
    if engine != "one-by-one":
        masked = {kind: int(column.sum()) for kind, column in edit(texts, rules)[1].items()}
    else:
        for text in texts:
            for pattern in patterns:
                pattern.findall(text)
    seconds = time.process_time() - began
    return {"cpu_s": seconds, "megabytes": sum(len(text.encode()) for text in texts) / 1e6, "masked": masked}


if __name__ == "__main__":
    print(json.dumps(ours(sys.argv[1], Path(sys.argv[2]))))
