"""The graph behind a report."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

from tasks.artifact import Artifact, Workspace
from tasks.report.config import ReportConfig
from tasks.report.lineage import picture, trace
from tasks.report.report import render


def test_every_artifact_is_there_once_and_after_its_parents(factory_inputs):
    nodes = trace(factory_inputs)
    assert len(nodes) == 21
    seen: set[str] = set()
    for node in nodes:
        assert {key for _, key in node.parents} <= seen
        assert node.key not in seen
        seen.add(node.key)


def test_the_order_of_the_inputs_does_not_matter(factory_inputs):
    turned = dict(reversed(list(factory_inputs.items())))
    assert trace(turned) == trace(factory_inputs)


def test_the_picture_has_a_box_for_each_artifact_that_leads_to_it(factory_inputs):
    nodes = trace(factory_inputs)
    svg = ET.fromstring(picture(nodes))
    assert [link.get("href") for link in svg.findall("a")] == [f"#{node.key}" for node in nodes]
    assert len(svg.findall("path")) == sum(len({key for _, key in node.parents}) for node in nodes)


def test_a_store_that_was_moved_has_the_same_page(store, tmp_path, build):
    inputs = build(store)
    page = render(ReportConfig(), inputs)
    moved = tmp_path / "elsewhere"
    shutil.move(store, moved)
    there = {
        role: Artifact(str(moved / Path(artifact.url).relative_to(store)), artifact.manifest)
        for role, artifact in inputs.items()
    }
    assert render(ReportConfig(), there) == page


def test_a_parent_made_again_with_other_content_is_said(store, make):
    words = ["one"]

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("0") as unit:
            unit.write_bytes("text", words[0].encode())

    parent = make(store, "clean", "a", body)
    child = make(store, "dedup", "b", body, {"clean": parent})
    assert "Made again since" not in render(ReportConfig(), {"others.0": child})
    words[0] = "two"
    shutil.rmtree(parent.url)
    make(store, "clean", "a", body)
    page = render(ReportConfig(), {"others.0": child})
    assert "Made again since, with other content than what was read then: clean/a (read by dedup/b)." in page


def test_two_artifacts_of_one_identity_and_two_names_are_both_shown(store, make):
    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("0") as unit:
            unit.write_bytes("text", b"same")

    made = {f"others.{name}": make(store, "train", name, body) for name in ("one", "two")}
    assert len({artifact.manifest.fingerprint for artifact in made.values()}) == 1
    assert [node.name for node in trace(made)] == ["one", "two"]
