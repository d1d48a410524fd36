"""What a part of the corpus benchmark is asked, and what it answers."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Options:
    """What `bench.corpus` was asked for."""

    docs: Path  # JSONL files with a `text` in each line
    megabytes: float  # of text to choose from
    rounds: int  # times each engine is run
    install: bool  # make the environments of peers that are not here


@dataclass(frozen=True)
class Part:
    """What one part measured."""

    speeds: dict[str, list[float]]  # engine -> MB per CPU-second in each round; `ours` is ours
    ratios: dict[str, float]  # names of GOALS in bench/corpus.py -> ours over the peer's median
    facts: dict[str, Any] = field(default_factory=dict)  # what is needed to doubt the numbers
