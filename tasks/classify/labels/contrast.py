"""Examples by where they come from: documents of chosen sources (1) against those of others (0), as recipes.md 4.1."""

from collections.abc import Iterator
from dataclasses import dataclass

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.classify.config import ContrastConfig, Side
from tasks.classify.labels.examples import (
    EXAMPLE,
    EXAMPLES,
    document_shards,
    id_ranks,
    is_heldout,
    sample_limit,
    sampled_rows,
    text_key,
)
from tasks.errors import DataFault
from tasks.records import table


@dataclass(frozen=True)
class Drawn:
    """One side's sample of one artifact."""

    name: str  # positive-0, negative-2, …
    label: int
    side: Side
    artifact: Artifact
    limit: int  # greatest rank that belongs to the sample

    def rows(self, path: str, seed: int) -> Iterator[dict[str, str]]:
        """The sampled documents of one shard."""
        return sampled_rows(self.artifact.file_url(path), self.side.sources, seed, self.limit)


@dataclass(frozen=True)
class Seen:
    """What is known of each text of the samples: eight bytes and where it stands first."""

    labels: dict[int, int]  # key -> bits of the labels it has
    first: dict[int, tuple[str, str, int]]  # key -> side, shard, position


def contrast(workspace: Workspace, config: ContrastConfig, inputs: dict[str, Artifact]) -> None:
    """Write `examples/SIDE-SHARD.parquet` (EXAMPLE), a unit for each shard of each side; one row in is one draw.

    A text that stands on both sides is dropped (`both_sides`), a second copy on one side too (`duplicate`): neither
    the model nor its evaluation may see them. Memory holds a key for each drawn document.

    Raises:
        DataFault: a side has no documents.
    """
    sides = draw(config, inputs)
    seen = _survey(sides, config.seed)
    keys = [(side, path) for side in sides for path in document_shards(side.artifact)]
    workspace.expect_units(len(keys))
    for side, path in keys:
        key = f"{side.name}/{path}"
        if workspace.unit_record(key) is None:
            with workspace.unit(key) as unit:
                _write(unit, side, path, seen, config)
    workspace.note(kind="contrast")


def draw(config: ContrastConfig, inputs: dict[str, Artifact]) -> list[Drawn]:
    """The samples of both sides.

    Raises:
        DataFault: one is empty.
    """
    drawn: list[Drawn] = []
    for label, name in ((1, "positive"), (0, "negative")):
        for number, side in enumerate(config.positives if label else config.negatives):
            artifact = inputs[f"documents.{side.input}"]
            limit = sample_limit(id_ranks(artifact, side.sources, config.seed), side.max_documents)
            if limit < 0:
                raise DataFault(
                    f"{name} side {number}: {artifact.url} has no document of "
                    f"{', '.join(side.sources) or 'any source'}: a classifier learns from both sides. "
                    "Correct the names of the sources, or give another artifact."
                )
            drawn.append(Drawn(f"{name}-{number}", label, side, artifact, limit))
    return drawn


def _survey(sides: list[Drawn], seed: int) -> Seen:
    seen = Seen({}, {})
    for side in sides:
        for path in document_shards(side.artifact):
            for position, row in enumerate(side.rows(path, seed)):
                key = text_key(row["text"])
                seen.labels[key] = seen.labels.get(key, 0) | 1 << side.label
                seen.first.setdefault(key, (side.name, path, position))
    return seen


def _write(unit: Unit, side: Drawn, path: str, seen: Seen, config: ContrastConfig) -> None:
    kept = []
    for position, row in enumerate(side.rows(path, config.seed)):
        unit.count(rows_in=1)
        key = text_key(row["text"])
        reason = (
            ("empty" if not row["text"].strip() else None)
            or ("both_sides" if seen.labels[key] == 0b11 else None)
            or ("duplicate" if seen.first[key] != (side.name, path, position) else None)
        )
        if reason:
            unit.drop(reason, row | {"label": side.label})
        else:
            kept.append(row | {"label": side.label, "heldout": is_heldout(key, config.heldout_fraction)})
    unit.count(rows_out=len(kept))
    unit.write_parquet(f"{EXAMPLES}{side.name}-{path.replace('/', '-')}", table(kept, EXAMPLE))


CONTRAST = Stage(
    name="contrast",
    version="1",
    run=contrast,
    code=("tasks.classify.labels.contrast", "tasks.classify.labels.examples", "tasks.classify.text", "tasks.shards"),
)
