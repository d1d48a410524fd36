"""What happened to the rows: how many each stage kept, why it dropped the others, and what a mixture holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.artifact import Artifact
from tasks.page.charts import Part
from tasks.report.lineage import Node

LANGUAGES = {
    "ja": "Japanese",
    "en": "English",
    "ko": "Korean",
    "zh": "Chinese",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "python": "Python",
}
MAIN_REASONS = 8  # shown by themselves in a funnel
DOCUMENT_STAGES = ("clean", "dedup", "decontaminate")  # a chain of these is one funnel


@dataclass(frozen=True)
class Level:
    """One bar of a funnel."""

    node: Node
    rows_in: int
    rows_out: int
    of_first: float  # rows out as a share of what the first stage of the funnel read


@dataclass(frozen=True)
class Reason:
    """Why rows were dropped."""

    node: Node
    reason: str
    rows: int
    share: float  # of the rows that this stage read


@dataclass(frozen=True)
class Funnel:
    """The rows of one line of stages, from what was read to what was kept."""

    title: str
    levels: tuple[Level, ...]
    reasons: tuple[Reason, ...]  # most rows first

    @property
    def main_reasons(self) -> tuple[Reason, ...]:
        """The reasons that dropped most; all of them when there are not many more."""
        return self.reasons if len(self.reasons) <= MAIN_REASONS + 2 else self.reasons[:MAIN_REASONS]

    @property
    def other_reasons(self) -> tuple[Reason, ...]:
        """The reasons that are not main ones."""
        return self.reasons[len(self.main_reasons) :]

    @property
    def stage(self) -> str:
        """The last stage of the line."""
        return self.levels[-1].node.stage

    @property
    def language(self) -> str:
        """What the line's first stage was told it reads; blank when it was not."""
        manifest = self.levels[0].node.manifest
        return str(manifest.config.get("language", "")) if manifest else ""

    @property
    def rows_in(self) -> int:
        return self.levels[0].rows_in

    @property
    def rows_out(self) -> int:
        return self.levels[-1].rows_out


def language_name(code: str) -> str:
    """The English name of a language code; the code itself when it is not a known one."""
    return LANGUAGES.get(code, code)


def language_order(code: str) -> tuple[int, str]:
    """Japanese, English, then the others by code."""
    return ({"ja": 0, "en": 1}.get(code, 2), code)


def funnels(nodes: Sequence[Node]) -> list[Funnel]:
    """Every line of stages that counted rows: clean, dedup and decontaminate of one corpus together, others alone.

    Stages that neither dropped nor counted anything are left out, and so are evaluation, release and report.
    """
    by_key = {node.key: node for node in nodes}
    continued: set[str] = set()
    found: list[tuple[int, Funnel]] = []
    for node in reversed(nodes):
        counts = node.manifest.counts if node.manifest else None
        if node.key in continued or counts is None or not counts.in_ or node.stage in ("eval", "release", "report"):
            continue
        line = [node]
        while line[0].stage in DOCUMENT_STAGES:
            parents = [by_key[key] for role, key in line[0].parents if not role.startswith("heldout")]
            before = [node for node in parents if node.stage in DOCUMENT_STAGES]
            if len(before) != 1 or before[0].manifest is None:
                break
            line.insert(0, before[0])
            continued.add(before[0].key)
        if len(line) == 1 and not counts.dropped and node.stage not in DOCUMENT_STAGES:
            continue
        found.append((nodes.index(line[0]), _funnel(line)))
    return [funnel for _, funnel in sorted(found, key=lambda item: item[0])]


def _funnel(line: Sequence[Node]) -> Funnel:
    levels: list[Level] = []
    reasons: list[Reason] = []
    first = 0
    for node in line:
        assert node.manifest is not None
        counts = node.manifest.counts
        first = first or counts.in_ or 1
        levels.append(Level(node, counts.in_, counts.out, counts.out / first))
        reasons += [
            Reason(node, reason, rows, rows / (counts.in_ or 1)) for reason, rows in counts.dropped.items() if rows
        ]
    reasons.sort(key=lambda item: (-item.rows, item.reason, item.node.label))
    return Funnel(" → ".join(node.label for node in line), tuple(levels), tuple(reasons))


@dataclass(frozen=True)
class Ingredient:
    """One source of a mixture."""

    name: str
    language: str
    share: float | None  # of the token budget
    records: int
    tokens: int
    epochs: float | None


@dataclass(frozen=True)
class Budget:
    """What was planned and what was granted to a source in a phase; without phases the phase is blank."""

    phase: str
    name: str
    planned: int
    granted: int


@dataclass(frozen=True)
class Mixture:
    """What a pack artifact feeds to training."""

    node: Node
    kind: str
    ingredients: tuple[Ingredient, ...]
    budgets: tuple[Budget, ...] = ()  # of every phase, or of a mixture that is not what was planned

    @property
    def tokens(self) -> int:
        return sum(item.tokens for item in self.ingredients)

    def bar(self, colour: Mapping[str, str]) -> list[Part]:
        """The shares as pieces of one bar, a language in one colour."""
        parts: list[Part] = []
        for item in self.ingredients:
            share = (item.tokens / self.tokens if self.tokens else 0.0) if item.share is None else item.share
            parts.append(Part(share, colour[item.language]))
        return parts


def mixtures(nodes: Sequence[Node]) -> list[Mixture]:
    """The mixture of every pack artifact in the lineage, in the order they were made."""
    found: list[Mixture] = []
    for node in nodes:
        if node.artifact is None or not _has(node.artifact, "mixture.json"):
            continue
        described = node.artifact.read_json("mixture.json")
        sources: list[Mapping[str, Any]] = list(described.get("sources", ()))
        weights = [float(source.get("weight") or 0) for source in sources]
        total = sum(weights)
        ingredients = [
            Ingredient(
                name=str(source.get("name", "?")),
                language=str(source.get("language", "")),
                share=weight / total if total else None,
                records=int(source.get("records") or 0),
                tokens=int(source.get("tokens") or 0),
                epochs=None if source.get("epochs") is None else float(source["epochs"]),
            )
            for source, weight in zip(sources, weights, strict=True)
        ]
        found.append(Mixture(node, str(described.get("kind", "text")), tuple(ingredients), _budgets(described)))
    return found


def _budgets(described: Mapping[str, Any]) -> tuple[Budget, ...]:
    """By phase; without phases only where a source was granted other than what was planned for it."""
    parts = [
        (str(phase["name"]), str(name), part)
        for phase in described.get("phases", ())
        for name, part in phase["sources"].items()
    ] or [("", str(s.get("name", "?")), s) for s in described.get("sources", ()) if "wanted_tokens" in s]
    found = tuple(Budget(phase, name, int(p["wanted_tokens"]), int(p["budget_tokens"])) for phase, name, p in parts)
    if described.get("phases"):
        return tuple(budget for budget in found if budget.planned or budget.granted)
    return found if any(budget.planned != budget.granted for budget in found) else ()


@dataclass(frozen=True)
class Sketch:
    """What the sketch of a dedup artifact finds of pairs that were planted, by how alike they are."""

    node: Node
    strata: tuple[Mapping[str, Any], ...]  # from, to, pairs, recall, theory; only of those that count as duplicates
    precision: float | None
    min_jaccard: float
    largest: Mapping[str, Any]  # component: documents, share, template; empty when no two documents met


def sketches(nodes: Sequence[Node]) -> list[Sketch]:
    """The measured recall of every dedup artifact in the lineage that has one."""
    found: list[Sketch] = []
    for node in nodes:
        if node.artifact is None or node.manifest is None or not _has(node.artifact, "dedup.json"):
            continue
        described = node.artifact.read_json("dedup.json")
        if recall := described.get("recall"):
            least = float(node.manifest.config.get("min_jaccard", 0))
            strata = tuple(row for row in recall["strata"] if row["to"] > least)
            found.append(Sketch(node, strata, recall["precision"], least, described.get("largest_component", {})))
    return found


def _has(artifact: Artifact, path: str) -> bool:
    return any(entry.path == path for entry in artifact.manifest.files)
