"""Where an artifact comes from: the graph up to raw sources and teachers, with licences."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tasks.artifact.manifest import MANIFEST, Counts, Manifest, ParentRef
from tasks.storage import exists, join, normalise, storage_for


@dataclass(frozen=True)
class Node:
    """One artifact of the graph. Of one that is gone only URL and fingerprint are known."""

    url: str
    stage: str
    name: str
    fingerprint: str
    manifest: Manifest | None = None

    @property
    def label(self) -> str:
        return f"{self.stage}/{self.name}-{self.fingerprint[:12]}"

    @property
    def licences(self) -> tuple[str, ...]:
        return self.manifest.licences if self.manifest else ()

    @property
    def teachers(self) -> tuple[str, ...]:
        return self.manifest.teachers if self.manifest else ()

    @property
    def counts(self) -> Counts:
        return self.manifest.counts if self.manifest else Counts()

    @property
    def is_missing(self) -> bool:
        return self.manifest is None


@dataclass(frozen=True)
class Edge:
    """`child` read `parent` in this role."""

    parent: str
    child: str
    role: str
    is_stale: bool = False  # the parent has other content now than the child read


@dataclass(frozen=True)
class Lineage:
    """A graph of artifacts, parents before children; the last node is the one that was asked for."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    @property
    def root(self) -> Node:
        return self.nodes[-1]

    @cached_property
    def sources(self) -> tuple[Node, ...]:
        """The artifacts that were made from nothing in the store: raw sources, teachers."""
        children = {edge.child for edge in self.edges}
        return tuple(node for node in self.nodes if node.url not in children)

    @cached_property
    def licences(self) -> tuple[str, ...]:
        """Of all artifacts in the graph."""
        return tuple(sorted({licence for node in self.nodes for licence in node.licences}))

    @cached_property
    def teachers(self) -> tuple[str, ...]:
        """Of all artifacts in the graph."""
        return tuple(sorted({teacher for node in self.nodes for teacher in node.teachers}))


def lineage(url: str) -> Lineage:
    """The graph of a finished artifact. Reads manifests only.

    Raises:
        FileNotFoundError: there is no finished artifact.
        ValueError: its manifest is damaged.
    """
    url = normalise(url)
    if not exists(join(url, MANIFEST)):
        raise FileNotFoundError(
            f"{url} holds no {MANIFEST}: lineage is read from finished artifacts. Make it first, or correct the URL."
        )
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    _visit(url, read_manifest(url), nodes, edges)
    return Lineage(tuple(nodes.values()), tuple(edges))


def _visit(url: str, manifest: Manifest | None, nodes: dict[str, Node], edges: list[Edge]) -> None:
    if manifest is None:
        return
    for role, ref in manifest.parents.items():
        parent = locate(ref, url)
        found = read_manifest(parent) if exists(join(parent, MANIFEST)) else None
        if parent not in nodes:
            _visit(parent, found, nodes, edges)
        if parent not in nodes:  # gone
            *_, stage, leaf = parent.split("/")
            nodes[parent] = Node(parent, stage, leaf.rpartition("-")[0] or leaf, ref.fingerprint)
        is_stale = found is not None and found.content_digest != ref.content_digest
        edges.append(Edge(parent, url, role, is_stale))
    nodes[url] = Node(url, manifest.stage, manifest.name, manifest.fingerprint, manifest)


def read_manifest(url: str) -> Manifest:
    """The manifest at an artifact's URL; its files are not looked at."""
    return Manifest.from_json(storage_for(url).read(join(url, MANIFEST)))


def locate(parent: ParentRef, child_url: str) -> str:
    """Where a parent is: where it was, or in the child's store when the whole store was moved or copied."""
    if exists(join(parent.url, MANIFEST)):
        return parent.url
    store = child_url.rsplit("/", 2)[0]
    moved = join(store, *parent.url.rsplit("/", 2)[-2:])
    return moved if exists(join(moved, MANIFEST)) else parent.url


def render_lineage(graph: Lineage) -> str:
    """A tree, the asked-for artifact at its head; a node that occurs twice is drawn once."""
    lines = [_described(graph.root, ""), *_branches(graph, graph.root.url, "", {graph.root.url})]
    lines += ["", f"licences: {', '.join(graph.licences) or 'none declared'}"]
    if graph.teachers:
        lines.append(f"teachers: {', '.join(graph.teachers)}")
    lines.append(f"raw sources: {', '.join(node.label for node in graph.sources)}")
    missing = [node.label for node in graph.nodes if node.is_missing]
    if missing:
        lines.append(f"no longer in the store: {', '.join(missing)}")
    return "\n".join(lines)


def _branches(graph: Lineage, url: str, indent: str, drawn: set[str]) -> Iterator[str]:
    nodes = {node.url: node for node in graph.nodes}
    edges = sorted((edge for edge in graph.edges if edge.child == url), key=lambda edge: edge.role)
    for index, edge in enumerate(edges):
        last = index == len(edges) - 1
        node = nodes[edge.parent]
        stale = "  (its content has changed since)" if edge.is_stale else ""
        if edge.parent in drawn:
            yield f"{indent}{'└─' if last else '├─'} {edge.role}: {node.label}  (see above){stale}"
            continue
        drawn.add(edge.parent)
        yield f"{indent}{'└─' if last else '├─'} {_described(node, edge.role)}{stale}"
        yield from _branches(graph, edge.parent, indent + ("   " if last else "│  "), drawn)


def _described(node: Node, role: str) -> str:
    head = f"{role}: {node.label}" if role else node.label
    if node.is_missing:
        return f"{head}  (gone)"
    facts = [
        f"[{', '.join(node.licences)}]" if node.licences else "",
        f"{node.counts.out:,} rows" * bool(node.counts.out),
    ]
    return "  ".join(text for text in (head, *facts) if text)
