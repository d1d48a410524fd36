"""Where the boxes of a layered graph go: parents above children, few crossings, edges that bend softly.

The usual four steps (layers, stand-ins for long edges, order by neighbours' means, coordinates), small and
deterministic: no random numbers, ties broken by the order of the nodes given.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

BOX_WIDTH, BOX_HEIGHT = 148, 54
GAP, LANE, LAYER_GAP = 18, 12, 40  # between boxes, width kept for a passing edge, between layers
SWEEPS = 12


@dataclass(frozen=True)
class Layout:
    """Centre and top of each box, and the points each edge passes, from the parent's foot to the child's head."""

    boxes: Mapping[str, tuple[float, float]]
    edges: Mapping[tuple[str, str], tuple[tuple[float, float], ...]]
    width: float
    height: float


def layers_of(nodes: Sequence[str], parents: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The layer of each node: below all its parents; a source stands right above its first child.

    `nodes` must list parents before children.
    """
    layer: dict[str, int] = {}
    for node in nodes:
        layer[node] = max((layer[parent] + 1 for parent in parents.get(node, ())), default=0)
    children: dict[str, list[str]] = {node: [] for node in nodes}
    for node in nodes:
        for parent in parents.get(node, ()):
            children[parent].append(node)
    for node in reversed(nodes):
        if not parents.get(node) and children[node]:
            layer[node] = min(layer[child] for child in children[node]) - 1
    return layer


def arrange(nodes: Sequence[str], parents: Mapping[str, Sequence[str]]) -> Layout:
    """Place the nodes. `nodes` lists parents before children; every parent is a node."""
    layer = layers_of(nodes, parents)
    depth = max(layer.values(), default=0) + 1
    rows: list[list[str]] = [[] for _ in range(depth)]
    for node in nodes:
        rows[layer[node]].append(node)
    links: list[tuple[str, str]] = []  # between neighbouring layers
    routes: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        for parent in dict.fromkeys(parents.get(node, ())):
            route = [parent]
            for between in range(layer[parent] + 1, layer[node]):
                lane = f"{parent}\0{node}\0{between}"
                rows[between].append(lane)
                route.append(lane)
            route.append(node)
            routes[parent, node] = route
            links += itertools.pairwise(route)
    up: dict[str, list[str]] = {item: [] for row in rows for item in row}
    down: dict[str, list[str]] = {item: [] for row in rows for item in row}
    for above, below in links:
        down[above].append(below)
        up[below].append(above)
    rows = _order(rows, up, down)
    x = _coordinates(rows, up, down)
    shift = GAP / 2 - min((x[item] - _width(item) / 2 for row in rows for item in row), default=0)
    top = [index * (BOX_HEIGHT + LAYER_GAP) + 4.0 for index in range(depth)]
    at = {item: (x[item] + shift, top[index]) for index, row in enumerate(rows) for item in row}
    edges = {ends: tuple(_waypoints([(item, *at[item]) for item in route])) for ends, route in sorted(routes.items())}
    width = max((at[item][0] + _width(item) / 2 for row in rows for item in row), default=0) + GAP / 2
    return Layout({node: at[node] for node in nodes}, edges, width, (top[-1] if top else 0) + BOX_HEIGHT + 4)


def _waypoints(route: list[tuple[str, float, float]]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for index, (item, x, y) in enumerate(route):
        if index:
            points.append((x, y))
        if index < len(route) - 1 and (index == 0 or "\0" in item):
            points.append((x, y + BOX_HEIGHT))
    return points


def _width(item: str) -> float:
    return LANE if "\0" in item else BOX_WIDTH


def crossings(rows: Sequence[Sequence[str]], down: Mapping[str, Sequence[str]]) -> int:
    """How many pairs of edges cross."""
    total = 0
    for above, below in itertools.pairwise(rows):
        place = {item: i for i, item in enumerate(below)}
        ends = [(i, place[child]) for i, item in enumerate(above) for child in down[item]]
        total += sum(1 for a in ends for b in ends if a[0] < b[0] and a[1] > b[1])
    return total


def _order(
    rows: list[list[str]], up: Mapping[str, Sequence[str]], down: Mapping[str, Sequence[str]]
) -> list[list[str]]:
    best, fewest = [list(row) for row in rows], crossings(rows, down)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        neighbours = up if downwards else down
        indices = range(1, len(rows)) if downwards else range(len(rows) - 2, -1, -1)
        for index in indices:
            other = rows[index - 1 if downwards else index + 1]
            place = {item: i for i, item in enumerate(other)}
            old = {item: i for i, item in enumerate(rows[index])}

            wish: dict[str, tuple[float, int]] = {}
            for item in rows[index]:
                near = [place[n] for n in neighbours[item]]
                wish[item] = (sum(near) / len(near) if near else old[item], old[item])
            rows[index] = sorted(rows[index], key=wish.__getitem__)
        count = crossings(rows, down)
        if count < fewest:
            best, fewest = [list(row) for row in rows], count
    return best


def _coordinates(
    rows: list[list[str]], up: Mapping[str, Sequence[str]], down: Mapping[str, Sequence[str]]
) -> dict[str, float]:
    x: dict[str, float] = {}
    for row in rows:
        edge = 0.0
        for item in row:
            x[item] = edge + _width(item) / 2
            edge += _width(item) + GAP
        middle = edge / 2
        for item in row:
            x[item] -= middle
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wish = {}
            for item in row:
                near = [x[n] for n in (*up[item], *down[item])]
                wish[item] = sum(near) / len(near) if near else x[item]
            x.update(_without_overlap(row, wish))
    return x


def _without_overlap(row: list[str], wish: Mapping[str, float]) -> dict[str, float]:
    """Positions in the row's order, apart by their widths, near the wishes (groups that collide share their mean)."""
    offset: list[float] = []
    edge = 0.0
    for item in row:
        offset.append(edge + _width(item) / 2)
        edge += _width(item) + GAP
    groups: list[tuple[float, int]] = []  # (sum of wished starts, size): pool adjacent violators
    for item, start in zip(row, offset, strict=True):
        groups.append((wish[item] - start, 1))
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            last = groups.pop()
            groups[-1] = (groups[-1][0] + last[0], groups[-1][1] + last[1])
    starts = [total / size for total, size in groups for _ in range(size)]
    return {item: start + start_x for item, start, start_x in zip(row, starts, offset, strict=True)}
