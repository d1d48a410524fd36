"""The stage against a scripted server: rows conserved, units resumed, each row with origin, teacher and licence."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import zstandard

from tasks.artifact import Artifact, produce
from tasks.errors import DataFault
from tasks.records import DOCUMENT, document_id, table
from tasks.synth.config import SynthConfig
from tasks.synth.synthesize import SYNTH
from tests.tasks.artifacts import artifact
from tests.tasks.generation.stub_api import StubApi, stub_api, text
from tests.tasks.tiny_teacher import teacher

THINGS = (
    "mail server",
    "web proxy",
    "print queue",
    "disk cache",
    "name daemon",
    "file index",
    "log reader",
    "task list",
)


def passage(thing: str) -> str:
    first = f"The {thing} keeps every waiting message of its users on the local disk."
    rest = "It sends them on as soon as the network is there again, and it never loses a single one on the long way."
    return f"{first} {rest} After a month it drops what nobody has asked for."


@pytest.fixture
def documents(tmp_path) -> Artifact:
    rows = [
        {
            "id": document_id("debian", thing, passage(thing)),
            "text": passage(thing),
            "url": f"deb:{thing}",
            "source": "debian",
            "language": "en",
            "licence": "GPL-2.0-or-later",
            "crawl_time": "",
            "meta": "{}",
        }
        for thing in THINGS
    ]
    notes = {"licences": ["GPL-2.0-or-later"]}
    files = {"train/0.parquet": table(rows[:5], DOCUMENT), "train/1.parquet": table(rows[5:], DOCUMENT)}
    return artifact(tmp_path / "store", "dedup", "en", files, notes=notes)


def config(stub: StubApi, **changes: object) -> SynthConfig:
    base = SynthConfig(
        documents="d", teacher="t", recipe="question", language="en", max_requests=8, unit_requests=3, min_yield=0.0
    )
    return base.with_changes({"serving.url": stub.url, **changes})


def good(prompt: str, before: int):
    subject = prompt.partition("The ")[2].partition(" keeps")[0]
    return text(f"Question: What does the {subject} keep?")


def run(tmp_path: Path, documents: Artifact, config: SynthConfig) -> Artifact:
    inputs = {"documents": documents, "teacher": teacher(tmp_path / "store")}
    return produce(str(tmp_path / "store"), SYNTH, "tiny-qa", config, inputs)


def rows(made: Artifact) -> list[dict[str, str]]:
    return [row for entry in made.files("docs/") for row in pq.read_table(made.file_url(entry.path)).to_pylist()]


def rejects(made: Artifact) -> list[dict[str, str]]:
    files = sorted((Path(made.url) / "rejects").rglob("*.zst"))
    data = b"".join(zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files)
    return [json.loads(line) for line in data.splitlines()]


def test_every_row_says_where_it_comes_from_and_licences_and_teachers_are_noted(tmp_path, documents):
    with stub_api(good) as stub:
        made = run(tmp_path, documents, config(stub))
    found = rows(made)
    assert len(found) == len(THINGS) == made.manifest.counts.out
    assert made.manifest.licences == ("Apache-2.0", "GPL-2.0-or-later")
    assert made.manifest.teachers == ("Tiny-Teacher",)
    for row in found:
        meta = json.loads(row["meta"])
        thing = row["url"].removeprefix("deb:")
        assert row["text"].startswith(passage(thing))
        assert f"Question: What does the {thing} keep?\nAnswer: The {thing} keeps" in row["text"]
        assert (row["source"], row["language"], row["licence"]) == ("synth/qa-en", "en", "GPL-2.0-or-later")
        assert meta["teacher"] == "Tiny-Teacher"
        assert meta["origin"] == document_id("debian", thing, passage(thing))


def test_what_is_not_kept_is_counted_by_gate_and_kept_aside_with_the_answer(tmp_path, documents):
    def script(prompt: str, before: int):
        if "proxy" in prompt:
            return text("I'm sorry, I can't help with that?")
        if "queue" in prompt:
            return (400, "too long")
        return good(prompt, before)

    with stub_api(script) as stub:
        made = run(tmp_path, documents, config(stub))
    counts = made.manifest.counts
    assert (counts.in_, counts.out) == (8, 6)
    assert counts.dropped == {"refusal": 1, "dead_rejected": 1}
    by_reason = {row["reason"]: row for row in rejects(made)}
    assert by_reason["refusal"]["answer"].startswith("I'm sorry")
    assert by_reason["dead_rejected"]["message"] == "HTTP 400: too long"
    assert by_reason["refusal"]["chunk"] == passage("web proxy")


def test_which_documents_are_taken_depends_on_the_seed_and_not_on_the_shards(tmp_path, documents):
    with stub_api(good) as stub:
        one = {row["url"] for row in rows(run(tmp_path, documents, config(stub, max_requests=3)))}
        two = {row["url"] for row in rows(run(tmp_path, documents, config(stub, max_requests=3, seed=1)))}
        again = {row["url"] for row in rows(run(tmp_path, documents, config(stub, max_requests=3, unit_requests=1)))}
    assert len(one) == len(two) == 3
    assert one != two
    assert one == again


def test_an_interrupted_run_finishes_with_the_same_bytes_and_asks_nothing_twice(tmp_path, documents):
    with stub_api(good) as stub:
        whole = run(tmp_path / "whole", documents, config(stub))
    answered = 0

    def dies(prompt: str, before: int):
        nonlocal answered
        answered += 1
        return good(prompt, before) if answered <= 4 else {"garbled": True}

    with stub_api(dies) as stub, pytest.raises(DataFault, match="min_yield"):
        run(tmp_path, documents, config(stub, min_yield=1.0, preview_requests=2, **{"serving.max_sequences": 1}))
    with stub_api(good) as stub:
        made = run(tmp_path, documents, config(stub))
        assert stub.asked.total() <= 4  # the rest was in the store
    assert made.manifest.content_digest == whole.manifest.content_digest


def test_other_gates_judge_the_same_answers_without_asking(tmp_path, documents):
    with stub_api(good) as stub:
        run(tmp_path, documents, config(stub))
        before = stub.asked.total()
        made = run(tmp_path, documents, config(stub, **{"gates.max_repeated": 0.19}))
        assert stub.asked.total() == before == 8
    assert made.manifest.counts.out == 8
    assert made.manifest.tokens == 8 * 7  # tokens are those of the answers, whenever they were asked


def test_a_teacher_that_writes_nothing_usable_stops_the_run_at_the_preview(tmp_path, documents):
    settings = {"min_yield": 0.5, "preview_requests": 3, "serving.max_sequences": 1}
    with stub_api(lambda prompt, before: text("no idea")) as stub:
        with pytest.raises(DataFault, match=r"0 of the last 3 answers.*no_question 3"):
            run(tmp_path, documents, config(stub, **settings))
        assert stub.asked.total() == 3  # nothing before the preview was judged
        with pytest.raises(DataFault, match="0 of the last 3"):  # the same command says the same and asks little
            run(tmp_path, documents, config(stub, **settings))
    assert max(stub.asked.values()) == 1


def test_more_documents_are_read_when_the_first_hold_nothing_for_the_recipe(tmp_path, documents):
    empty = [
        {
            "id": f"{i:016x}",
            "text": "Menu",
            "url": "",
            "source": "s",
            "language": "en",
            "licence": "CC0-1.0",
            "crawl_time": "",
            "meta": "{}",
        }
        for i in range(60)
    ]
    good_one = {**empty[0], "id": "good", "text": passage("mail server")}
    corpus = artifact(tmp_path / "store", "dedup", "sparse", {"train/0.parquet": table([*empty, good_one], DOCUMENT)})
    with stub_api(good) as stub:
        made = run(tmp_path, corpus, config(stub, max_requests=2))
    assert made.manifest.counts.out == 1


def test_a_corpus_without_a_piece_for_the_recipe_says_so(tmp_path, documents):
    with stub_api(good) as stub, pytest.raises(DataFault, match=r"no piece of its train/ documents suits recipe"):
        run(tmp_path, documents, config(stub, chunk_tokens=3))


def test_equal_documents_are_written_once(tmp_path, documents):
    with stub_api(good) as stub:
        made = run(tmp_path, documents, config(stub, unit_requests=8))
    assert len({row["id"] for row in rows(made)}) == len(rows(made))
