"""What a filter is: its thresholds, and a judgement that names the reason to drop a text."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tasks.config import StageConfig
from tasks.ingest.text import Text

Judge = Callable[[Text, Any], str | None]  # the thresholds are an instance of the filter's `rules`


@dataclass(frozen=True)
class Filter:
    """A family of rules. `judge` is pure: same text and thresholds, same answer."""

    rules: type[StageConfig]  # thresholds as fields with their published values as defaults
    judge: Judge
