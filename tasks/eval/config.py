"""Knobs of an evaluation."""

from typing import Self

from pydantic import Field, field_validator, model_validator

from tasks.config import StageConfig, input_field
from tasks.eval.benchmarks import BENCHMARKS


class EvalConfig(StageConfig):
    """Models side by side on the same held-out material."""

    models: tuple[str, ...] = input_field("Models to compare: train or release artifacts, in the order of the labels.")
    labels: tuple[str, ...] = Field(min_length=1, description="Name of each model in tables, for example base cpt sft.")
    heldout: tuple[str, ...] = input_field("Artifacts with held-out documents (heldout/*.parquet): dedup or pack.")
    instructions: str = input_field(
        "Artifact with held-out conversations (heldout/*.parquet); blank for none.", default=""
    )
    tasks: tuple[str, ...] = Field(
        min_length=1,
        description="Benchmarks, for all languages, or for one as in bits_per_byte:python.",
    )
    languages: tuple[str, ...] = Field(min_length=1, description="Languages that a task without one is run for.")
    limits: dict[str, int] = Field(
        default={}, description="Most items of a benchmark in one language; 500 where nothing is said."
    )
    max_document_chars: int = Field(
        default=20_000, gt=0, description="Held-out documents are cut to this many characters."
    )
    max_new_tokens: int = Field(default=64, gt=0, description="Longest answer of a generation task (tokens).")
    context_tokens: int | None = Field(
        default=None, gt=8, description="Longest input (tokens); blank: the smallest max_seq_len of the models."
    )
    batch_tokens: int = Field(
        default=4096,
        gt=0,
        description="Tokens of one forward pass, padding included. Part of the identity: rounding depends on it.",
    )

    @field_validator("limits")
    @classmethod
    def _known(cls, limits: dict[str, int]) -> dict[str, int]:
        for name, limit in limits.items():
            if limit < 1:
                raise ValueError(f"limits[{name!r}]={limit}: a benchmark without items has no score. Use 1 or more.")
            _known_benchmark(name)
        return limits

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(self.labels) != len(self.models) or len(set(self.labels)) != len(self.labels):
            raise ValueError(
                f"labels={self.labels} for {len(self.models)} models: each model needs one name of its own, because "
                "scores are told apart by it. Give as many different labels as models."
            )
        for label in self.labels:
            if not label.replace("-", "").replace("_", "").replace(".", "").isalnum():
                raise ValueError(f"label {label!r} is part of file names: use letters, digits, '-', '_' and '.'.")
        for name, _ in self.pairs():
            if name == "instructions" and not self.instructions:
                raise ValueError(
                    "tasks names 'instructions' but the input instructions is blank: that benchmark asks held-out "
                    "conversations. Set instructions=instruct/PRESET, or leave the task out."
                )
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """(benchmark, language) of every task, each once, in the order given."""
        found: dict[tuple[str, str], None] = {}
        for task in self.tasks:
            name, _, language = task.partition(":")
            _known_benchmark(name)
            for one in [language] if language else self.languages:
                found[name, one] = None
        return list(found)

    def limit(self, benchmark: str) -> int:
        return self.limits.get(benchmark, 500)


def _known_benchmark(name: str) -> None:
    if name not in BENCHMARKS:
        raise ValueError(
            f"benchmark {name!r} is not one of {', '.join(BENCHMARKS)}: each is a file of tasks/eval/benchmarks. "
            "Use one of these, or add a file and a line in benchmarks/__init__.py."
        )
