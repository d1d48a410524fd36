"""Everything behind a report's inputs: the graph of artifacts, parents first, and its picture."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tasks.artifact import Artifact
from tasks.artifact.lineage import lineage
from tasks.artifact.manifest import Manifest
from tasks.page.charts import compact, element, number, shorten, size
from tasks.report.layout import BOX_HEIGHT, BOX_WIDTH, arrange

KINDS = {
    **dict.fromkeys(("mirror", "clean", "dedup", "decontaminate", "synth", "instruct", "pack", "tokenizer"), "data"),
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
    parents: tuple[tuple[str, str], ...]  # (role, key)
    stale: tuple[str, ...]  # roles of parents that hold other content now than when this was made
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
    for _, artifact in sorted(inputs.items()):
        graph = lineage(artifact.url)
        keys = {node.url: _key(node.stage, node.name, node.fingerprint) for node in graph.nodes}
        for node in graph.nodes:
            edges = [edge for edge in graph.edges if edge.child == node.url]
            found = Node(
                key=keys[node.url],
                stage=node.stage,
                name=node.name,
                fingerprint=node.fingerprint,
                parents=tuple(sorted((edge.role, keys[edge.parent]) for edge in edges)),
                stale=tuple(sorted(edge.role for edge in edges if edge.is_stale)),
                artifact=Artifact(node.url, node.manifest) if node.manifest else None,
            )
            if found.artifact is not None or found.key not in nodes:
                nodes[found.key] = found
    return list(nodes.values())


def _key(stage: str, name: str, fingerprint: str) -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", f"{stage}-{name}-{fingerprint[:12]}")


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
