"""Everything behind a report's inputs: the graph of artifacts, parents first, and its picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.artifact import Artifact
from tasks.manifest import MANIFEST, Manifest, ParentRef
from tasks.report.charts import compact, element, number, shorten, size
from tasks.report.layout import BOX_HEIGHT, BOX_WIDTH, arrange
from tasks.storage import join, storage_for

KINDS = {
    **dict.fromkeys(("mirror", "clean", "dedup", "synth", "instruct", "pack", "tokenizer"), "data"),
    **dict.fromkeys(("teacher", "train"), "model"),
    **dict.fromkeys(("eval", "release", "report"), "result"),
}


@dataclass(frozen=True)
class Node:
    """An artifact of the lineage. `artifact` is None when its manifest is gone (collected, or another machine's)."""

    key: str  # usable as an HTML id
    stage: str
    name: str
    fingerprint: str
    url: str
    parents: tuple[tuple[str, str], ...]  # (role, key)
    artifact: Artifact | None

    @property
    def label(self) -> str:
        return f"{self.stage}/{self.name}"

    @property
    def manifest(self) -> Manifest | None:
        return self.artifact.manifest if self.artifact else None


def trace(inputs: Mapping[str, Artifact]) -> list[Node]:
    """The inputs and all their ancestors, each artifact once, parents before children, in an order that depends on
    nothing but the graph. A parent that cannot be read any more is kept as a node without artifact."""
    nodes: dict[str, Node] = {}

    def visit(artifact: Artifact) -> str:
        manifest = artifact.manifest
        key = _key(manifest.fingerprint)
        if key in nodes:
            return key
        parents: list[tuple[str, str]] = []
        for role, parent in sorted(manifest.parents.items()):
            if _key(parent.fingerprint) not in nodes:
                found = _open(parent)
                if found is None:
                    missing = _absent(parent)
                    nodes[missing.key] = missing
                else:
                    visit(found)
            parents.append((role, _key(parent.fingerprint)))
        nodes[key] = Node(
            key, manifest.stage, manifest.name, manifest.fingerprint, artifact.url, tuple(parents), artifact
        )
        return key

    for _, artifact in sorted(inputs.items()):
        visit(artifact)
    return list(nodes.values())


def _open(parent: ParentRef) -> Artifact | None:
    """The parent by its manifest alone: its files are verified when they are read."""
    try:
        manifest = Manifest.from_json(storage_for(parent.url).read(join(parent.url, MANIFEST)))
    except (OSError, ValueError):
        return None
    return Artifact(parent.url, manifest) if manifest.fingerprint == parent.fingerprint else None


def _absent(parent: ParentRef) -> Node:
    above, _, folder = parent.url.rstrip("/").rpartition("/")
    name = folder.rpartition("-")[0] or folder
    return Node(_key(parent.fingerprint), above.rpartition("/")[2], name, parent.fingerprint, parent.url, (), None)


def _key(fingerprint: str) -> str:
    return f"a-{fingerprint[:12]}"


def picture(nodes: Sequence[Node]) -> Markup:
    """The graph as SVG; each box links to the artifact's row in the table below it."""
    layout = arrange([node.key for node in nodes], {node.key: [key for _, key in node.parents] for node in nodes})
    parts: list[Markup] = [element("title", "Lineage: each box is an artifact, lines run from what it read")]
    for points in layout.edges.values():
        parts.append(element("path", d=_path(points), class_="edge"))
    for node in nodes:
        x, y = layout.boxes[node.key]
        manifest = node.manifest
        fact = "not readable any more" if manifest is None else f"{compact(manifest.counts.out)} rows"
        if manifest is not None and manifest.tokens:
            fact = f"{compact(manifest.tokens)} tokens"
        elif manifest is not None and not manifest.counts.out:
            fact = size(manifest.bytes)
        parts.append(
            element(
                "a",
                element(
                    "rect",
                    x=x - BOX_WIDTH / 2,
                    y=y,
                    width=BOX_WIDTH,
                    height=BOX_HEIGHT,
                    rx=6,
                    class_=f"box {KINDS.get(node.stage, '')}".strip(),
                ),
                element("text", node.stage, x=x, y=y + 15, class_="fact"),
                element("text", shorten(node.name, 17), x=x, y=y + 31, class_="name"),
                element("text", fact, x=x, y=y + 46, class_="fact"),
                href=f"#{node.key}",
                aria_label=f"{node.label}, {fact}",
            )
        )
    return element(
        "svg",
        *parts,
        width=round(layout.width),
        height=round(layout.height),
        viewBox=f"0 0 {number(layout.width)} {number(layout.height)}",
        role="group",
    )


def _path(points: tuple[tuple[float, float], ...]) -> str:
    (x, y), *rest = points
    steps = [f"M{x:.1f} {y:.1f}"]
    for next_x, next_y in rest:
        half = (y + next_y) / 2
        steps.append(f"C{x:.1f} {half:.1f} {next_x:.1f} {half:.1f} {next_x:.1f} {next_y:.1f}")
        x, y = next_x, next_y
    return " ".join(steps)
