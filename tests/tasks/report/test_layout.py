"""The lineage picture: parents above children, boxes apart, the same every time."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tasks.report.layout import BOX_HEIGHT, BOX_WIDTH, arrange, crossings, layers_of


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[str], dict[str, list[str]]]:
    count = draw(st.integers(1, 14))
    nodes = [f"n{i}" for i in range(count)]
    parents = {
        node: sorted(draw(st.sets(st.sampled_from(nodes[:i]), max_size=4))) if i else [] for i, node in enumerate(nodes)
    }
    return nodes, parents


@given(graphs())
def test_parents_stand_above_children_and_boxes_do_not_touch(graph):
    nodes, parents = graph
    layout = arrange(nodes, parents)
    for node in nodes:
        for parent in parents[node]:
            assert layout.boxes[parent][1] + BOX_HEIGHT < layout.boxes[node][1]
    by_layer: dict[float, list[float]] = {}
    for x, y in layout.boxes.values():
        by_layer.setdefault(y, []).append(x)
    for xs in by_layer.values():
        xs.sort()
        assert all(right - left >= BOX_WIDTH for left, right in itertools.pairwise(xs))
    for x, y in layout.boxes.values():
        assert BOX_WIDTH / 2 <= x <= layout.width - BOX_WIDTH / 2
        assert 0 <= y <= layout.height - BOX_HEIGHT


@given(graphs())
def test_every_edge_runs_from_foot_to_head_and_downwards(graph):
    nodes, parents = graph
    layout = arrange(nodes, parents)
    assert set(layout.edges) == {(parent, node) for node in nodes for parent in parents[node]}
    for (parent, node), points in layout.edges.items():
        x, y = layout.boxes[parent]
        assert points[0] == (x, y + BOX_HEIGHT)
        assert points[-1] == layout.boxes[node]
        assert [y for _, y in points] == sorted(y for _, y in points)
        assert all(0 <= x <= layout.width for x, _ in points)


@given(graphs())
def test_the_same_graph_gives_the_same_picture(graph):
    nodes, parents = graph
    assert arrange(nodes, parents) == arrange(list(nodes), {k: list(v) for k, v in parents.items()})


def test_a_source_stands_right_above_its_first_use():
    layer = layers_of(["a", "b", "c", "teacher", "d"], {"b": ["a"], "c": ["b"], "d": ["c", "teacher"]})
    assert layer == {"a": 0, "b": 1, "c": 2, "teacher": 2, "d": 3}


def test_two_crossed_pairs_are_uncrossed():
    nodes = ["a", "b", "x", "y"]
    layout = arrange(nodes, {"x": ["b"], "y": ["a"]})
    assert (layout.boxes["a"][0] < layout.boxes["b"][0]) == (layout.boxes["y"][0] < layout.boxes["x"][0])


def test_crossings_are_counted():
    assert crossings([["a", "b"], ["x", "y"]], {"a": ["y"], "b": ["x"], "x": [], "y": []}) == 1
    assert crossings([["a", "b"], ["x", "y"]], {"a": ["x"], "b": ["y"], "x": [], "y": []}) == 0


def test_nothing_has_a_picture_too():
    assert arrange([], {}).boxes == {}
