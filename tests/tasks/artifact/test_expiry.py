"""`gc`: removes what nobody needs, and nothing else."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.artifact import Artifact, Workspace, open_artifact, produce
from tasks.artifact.expiry import gc, render_gc
from tasks.artifact.lease import hold
from tasks.artifact.manifest import MANIFEST
from tasks.artifact.stage import scratch_dir
from tasks.errors import ConfigError
from tasks.storage import is_local, join, storage_for
from tests.tasks.artifact.counting_stage import COUNT, CountingConfig
from tests.tasks.artifact.test_lineage import NOTE, NoteConfig, family

DAY_S = 86_400.0


def made(store: str, shards: int) -> Artifact:
    return produce(store, COUNT, f"shards{shards}", CountingConfig(shards=shards), {})


def unfinished(store: str, name: str) -> str:
    urls: list[str] = []

    def stops(ws: Workspace, config: CountingConfig, inputs: dict[str, Artifact]) -> None:
        urls.append(ws.url)
        (ws.scratch / "checkpoint").write_text("step 1")
        COUNT.run(ws, CountingConfig(shards=1), inputs)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce(store, replace(COUNT, run=stops), name, CountingConfig(shards=2), {})
    return urls[0]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty days have passed."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30 * DAY_S)


@pytest.mark.usefixtures("later")
def test_what_no_root_reaches_goes_and_the_ancestors_of_roots_stay(any_store: str):
    source, teacher, synth, model = family(any_store)
    lone = made(any_store, 2)
    found = gc(any_store, [synth.url], 14 * DAY_S)
    expected = {model.url, lone.url}
    assert {removal.url for removal in found.removals} == expected
    assert (found.kept, found.deleted) == (3, False)
    for artifact in (source, teacher, synth, model, lone):
        assert open_artifact(artifact.url) == artifact, "a dry run removes nothing"
    done = gc(any_store, [synth.url], 14 * DAY_S, dry_run=False)
    assert {removal.url for removal in done.removals} == expected
    for artifact in (source, teacher, synth):
        assert open_artifact(artifact.url) == artifact
    for artifact in (model, lone):
        assert storage_for(any_store).find(artifact.url) == {}
    if is_local(any_store):
        assert not Path(model.url).exists()
    assert gc(any_store, [synth.url], 14 * DAY_S).removals == ()


@pytest.mark.parametrize(("age_days", "goes"), [(29.0, True), (31.0, False)])
@pytest.mark.usefixtures("later")
def test_the_young_stay_with_their_ancestors(store: str, age_days: float, goes: bool):
    lone = made(store, 2)
    assert {removal.url for removal in gc(store, [], age_days * DAY_S).removals} == ({lone.url} if goes else set())


def test_the_parents_of_the_young_stay_whatever_their_age(store: str):
    source, *_, model = family(store)
    aged(source)
    assert gc(store, [], 14 * DAY_S).removals == ()
    assert {removal.url for removal in gc(store, [], -1).removals} >= {source.url, model.url}


def aged(artifact: Artifact) -> Artifact:
    """The artifact, finished long ago."""
    manifest = artifact.manifest.model_copy(update={"finished": "2020-01-01T00:00:00+00:00"})
    storage_for(artifact.url).write(join(artifact.url, MANIFEST), manifest.to_json())
    return replace(artifact, manifest=manifest)


def test_what_unfinished_work_is_made_from_stays(any_store: str):
    source, lone = aged(made(any_store, 1)), aged(made(any_store, 2))
    removed: list[str] = []

    def stops(ws: Workspace, config: NoteConfig, inputs: dict[str, Artifact]) -> None:
        removed.extend(removal.url for removal in gc(any_store, [], 14 * DAY_S, dry_run=False).removals)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        produce(any_store, replace(NOTE, run=stops), "child", NoteConfig(), {"docs": source})
    assert removed == [lone.url], "while it runs"
    assert gc(any_store, [], 14 * DAY_S, dry_run=False).removals == (), "after it was stopped"
    assert open_artifact(source.url) == source


def test_what_cannot_be_known_stops_the_removal(store: str):
    source = aged(made(store, 1))
    child = produce(store, NOTE, "child", NoteConfig(), {"docs": source})
    Path(child.url, MANIFEST).write_bytes(b"{}")
    with pytest.raises(ConfigError, match=r"damaged.*nothing was removed"):
        gc(store, [], 14 * DAY_S, dry_run=False)
    produce(store, NOTE, "child", NoteConfig(), {"docs": source})
    with hold(join(store, "note", "new-0123456789ab")), pytest.raises(ConfigError, match="just being begun"):
        gc(store, [child.url], 14 * DAY_S, dry_run=False)
    assert open_artifact(source.url) == source


@pytest.mark.usefixtures("later")
def test_what_a_run_is_making_is_never_touched(any_store: str):
    artifact = made(any_store, 2)
    with hold(artifact.url):
        found = gc(any_store, [], 0, dry_run=False)
        assert (found.removals, found.held) == ((), (artifact.url,))
        assert f"held       {artifact.url}" in render_gc(found)
    assert open_artifact(artifact.url) == artifact


@pytest.mark.usefixtures("later")
def test_a_run_that_begins_after_the_look_keeps_its_artifact(store: str, monkeypatch: pytest.MonkeyPatch):
    artifact = made(store, 2)
    with hold(artifact.url):
        monkeypatch.setattr("tasks.artifact.expiry.is_held", lambda _: False)  # as it was when gc looked
        found = gc(store, [], 0, dry_run=False)
    assert (found.removals, found.held) == ((), (artifact.url,))
    assert open_artifact(artifact.url) == artifact


def test_unfinished_work_and_its_scratch_expire_together(any_store: str, monkeypatch: pytest.MonkeyPatch):
    url = unfinished(any_store, "half")
    assert gc(any_store, [], 14 * DAY_S).removals == ()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 30 * DAY_S)
    assert gc(any_store, [], 31 * DAY_S).removals == ()
    found = gc(any_store, [], 14 * DAY_S, dry_run=False)
    assert sorted(removal.kind for removal in found.removals) == ["scratch", "unfinished"]
    assert not scratch_dir(url).exists()
    assert storage_for(any_store).find(url) == {}


@pytest.mark.usefixtures("later")
def test_leftover_scratch_and_staging_of_finished_artifacts_go(any_store: str):
    artifact = made(any_store, 2)
    scratch = scratch_dir(artifact.url)
    scratch.mkdir(parents=True)
    (scratch / "checkpoint").write_bytes(b"x" * 1000)
    leftovers = {str(scratch)}
    if is_local(any_store):
        staging = Path(artifact.url, ".staging")
        (staging / "unit").mkdir(parents=True)
        (staging / "unit" / "file").write_bytes(b"y" * 10)
        leftovers.add(str(staging))
    found = gc(any_store, [artifact.url], 14 * DAY_S, dry_run=False)
    assert {removal.url for removal in found.removals} == leftovers
    assert found.bytes >= 1000
    assert not any(Path(path).exists() for path in leftovers)
    assert open_artifact(artifact.url, deep=True) == artifact


@pytest.mark.usefixtures("later")
def test_scratch_of_another_store_in_the_same_place_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NESTLING_SCRATCH", str(tmp_path / "scratch"))
    half = unfinished(str(tmp_path / "one"), "half")
    gc(str(tmp_path / "two"), [], 0, dry_run=False)
    assert (scratch_dir(half) / "checkpoint").exists()


def test_a_root_that_is_not_finished_stops_everything(store: str):
    artifact = made(store, 2)
    with pytest.raises(ConfigError, match="not a finished artifact"):
        gc(store, [join(store, "count", "typo")], -1, dry_run=False)
    assert open_artifact(artifact.url) == artifact


@pytest.mark.usefixtures("later")
def test_the_text_lists_the_largest_first_and_says_how_to_go_on(store: str):
    small, large = made(store, 1), made(store, 9)
    text = render_gc(gc(store, [], 14 * DAY_S))
    assert text.index(large.url) < text.index(small.url)
    assert "would remove 2" in text
    assert "say --delete" in text
    assert "30.0 days" in text
    done = render_gc(gc(store, [], 14 * DAY_S, dry_run=False))
    assert "removed 2" in done
    assert "say --delete" not in done


def test_a_removed_artifact_can_be_made_again(store: str):
    artifact = produce(store, NOTE, "x", NoteConfig(), {})
    gc(store, [], -1, dry_run=False)
    again = produce(store, NOTE, "x", NoteConfig(), {})
    assert again.manifest.content_digest == artifact.manifest.content_digest
