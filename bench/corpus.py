"""The corpus engine: megabytes per CPU-second of its parts, ours against the best peers.

    python -m bench.corpus [--parts filters ...] [--docs FOLDER] [--megabytes 40] [--rounds 3] [--install]

`ratios` is ours over the peer of that name, `goals` what issue 5 asks for. A peer that is not installed is left out of
both, and `left_out` says so; `--install` makes its environment under `.cache/bench-venvs`.
"""

import json
from pathlib import Path

from bench.corpus_parts import PARTS
from bench.corpus_parts.part import Options
from bench.harness import ROOT, compared, parser, publish, say

DOCS = ROOT.parent / "shared" / "data" / "corpus-ja"  # development machines have it; elsewhere give --docs
GOALS = {
    "quality_vs_hojichar": 15,
    "quality_vs_datatrove_ja": 100,
    "ng_vs_hojichar": 100,
    "minhash_vs_hojichar": 5,
    "minhash_vs_datatrove": 100,
    "extract_vs_trafilatura": 25,
    "pipeline_vs_datatrove": 2,
}


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what to measure")
    options.add_argument("--docs", type=Path, default=DOCS, help="JSONL (or .gz) with `text`, or a folder of such")
    options.add_argument("--megabytes", type=float, default=40.0, help="how much text to choose from")
    options.add_argument("--install", action="store_true", help="install peers that are not here")
    chosen = options.parse_args(arguments)
    asked = Options(chosen.docs, chosen.megabytes, chosen.rounds, chosen.install)
    found = {}
    for name in chosen.parts:
        say(f"part {name}")
        found[name] = PARTS[name](asked)
        say(json.dumps({"part": name, "ratios": found[name].ratios, **found[name].facts}))
    ratios = {name: ratio for part in found.values() for name, ratio in part.ratios.items()}
    first = next(iter(found.values()))
    publish(
        "corpus",
        "MB per CPU-second",
        first.speeds["ours"],
        {engine: values for engine, values in first.speeds.items() if engine != "ours"},
        ratios=ratios,
        goals={name: GOALS[name] for name in ratios},
        left_out=[name for name in GOALS if name not in ratios],
        parts={
            name: compared(part.speeds["ours"], {key: values for key, values in part.speeds.items() if key != "ours"})
            | part.facts
            for name, part in found.items()
        },
        rounds=chosen.rounds,
        docs=str(chosen.docs),
    )


if __name__ == "__main__":
    main()
