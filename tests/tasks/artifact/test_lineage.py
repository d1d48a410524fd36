"""Where an artifact comes from."""

import shutil
from pathlib import Path

import pytest

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.artifact.lineage import lineage, render_lineage
from tasks.config import StageConfig
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig


class NoteConfig(StageConfig):
    licences: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()


def note(ws: Workspace, config: NoteConfig, inputs: dict[str, Artifact]) -> None:
    with ws.unit("all") as unit:
        unit.write_json("inputs.json", {role: artifact.manifest.content_digest for role, artifact in inputs.items()})
        unit.count(rows_in=1234, rows_out=1234)
    ws.note(licences=config.licences, teachers=config.teachers)


NOTE = Stage("note", "1", note, ("tests.tasks.artifact.counting_stage",))


def family(store: str) -> tuple[Artifact, Artifact, Artifact, Artifact]:
    """source -> synth (with a teacher) -> model; source -> model."""
    source = produce(store, COUNT, "source", CountingConfig(shards=1), {})
    teacher = produce(store, NOTE, "teacher", NoteConfig(licences=("Apache-2.0",), teachers=("SmolLM2",)), {})
    synth = produce(store, NOTE, "synth", NoteConfig(), {"documents": source, "teacher": teacher})
    model = produce(store, NOTE, "model", NoteConfig(licences=("MIT",)), {"corpus": synth, "raw": source})
    return source, teacher, synth, model


def test_the_graph_has_every_ancestor_once_parents_first_and_all_licences(any_store: str):
    source, teacher, synth, model = family(any_store)
    graph = lineage(model.url)
    urls = [node.url for node in graph.nodes]
    assert sorted(urls) == sorted({source.url, teacher.url, synth.url, model.url})
    assert all(urls.index(edge.parent) < urls.index(edge.child) for edge in graph.edges)
    assert {(edge.parent, edge.child, edge.role) for edge in graph.edges} == {
        (source.url, synth.url, "documents"),
        (teacher.url, synth.url, "teacher"),
        (synth.url, model.url, "corpus"),
        (source.url, model.url, "raw"),
    }
    assert graph.root.url == model.url
    assert graph.licences == ("Apache-2.0", "CC0-1.0", "MIT") == model.manifest.licences
    assert graph.teachers == ("SmolLM2",)
    assert {node.url for node in graph.sources} == {source.url, teacher.url}


def test_the_text_shows_the_tree(store: str):
    source, teacher, synth, model = family(store)
    prints = {
        name: item.url.rsplit("-")[-1] for name, item in zip("stym", (source, teacher, synth, model), strict=True)
    }
    assert render_lineage(lineage(model.url)).splitlines() == [
        f"note/model-{prints['m']}  [Apache-2.0, CC0-1.0, MIT]  1,234 rows",
        f"├─ corpus: note/synth-{prints['y']}  [Apache-2.0, CC0-1.0]  1,234 rows",
        f"│  ├─ documents: count/source-{prints['s']}  [CC0-1.0]  13 rows",
        f"│  └─ teacher: note/teacher-{prints['t']}  [Apache-2.0]  1,234 rows",
        f"└─ raw: count/source-{prints['s']}  (see above)",
        "",
        "licences: Apache-2.0, CC0-1.0, MIT",
        "teachers: SmolLM2",
        f"raw sources: count/source-{prints['s']}, note/teacher-{prints['t']}",
    ]


def test_an_ancestor_that_is_gone_or_was_remade_otherwise_is_said(store: str):
    source, teacher, _, model = family(store)
    shutil.rmtree(source.url)
    text = render_lineage(lineage(model.url))
    assert f"documents: count/source-{source.manifest.fingerprint[:12]}  (gone)" in text
    assert "no longer in the store: count/source" in text
    other = replace_run(store, teacher)
    assert other.manifest.content_digest != teacher.manifest.content_digest
    assert "(its content has changed since)" in render_lineage(lineage(model.url))


def replace_run(store: str, teacher: Artifact) -> Artifact:
    def otherwise(ws: Workspace, config: NoteConfig, inputs: dict[str, Artifact]) -> None:
        with ws.unit("all") as unit:
            unit.write_json("inputs.json", "other")

    stage = Stage("note", "1", otherwise, NOTE.code)
    config = NoteConfig(licences=("Apache-2.0",), teachers=("SmolLM2",))
    again = produce(store, stage, "teacher", config, {}, rerun=True)
    assert again.url == teacher.url
    return again


def test_a_store_that_was_moved_keeps_its_lineage(store: str, tmp_path: Path):
    *_, model = family(store)
    shutil.move(store, tmp_path / "elsewhere")
    moved = model.url.replace(store, str(tmp_path / "elsewhere"))
    graph = lineage(moved)
    assert not any(node.is_missing for node in graph.nodes)
    assert all(node.url.startswith(str(tmp_path / "elsewhere")) for node in graph.nodes)


def test_what_is_not_finished_has_no_lineage(store: str):
    with pytest.raises(FileNotFoundError, match=r"holds no MANIFEST.json"):
        lineage(store + "/count/none")
