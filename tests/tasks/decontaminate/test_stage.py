"""The stage: rows that hold an item go with evidence, all others pass unchanged, and every row is counted."""

import io
import json

import pyarrow as pa
import pytest
import zstandard

from tasks.artifact import produce
from tasks.decontaminate.config import DecontaminateConfig, ItemFile
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.errors import ConfigError
from tasks.records import CHAT, DOCUMENT, table
from tasks.shards import read_documents, read_table
from tests.tasks.artifacts import artifact

EN = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May, she says."
JA = "ロボットは毎朝七時に起動して、庭の水やりを三十分かけて行い、その後で報告書を書いています。"
CLEAN = "Nothing of the kind stands here; the weather was fine all day long and nobody asked about clips at all."


def document(number: int, text: str, source: str = "web") -> dict[str, str]:
    fixed = {"url": f"u{number}", "language": "en", "licence": "MIT", "crawl_time": "", "meta": "{}"}
    return {"id": f"{number:04d}", "text": text, "source": source} | fixed


def conversation(number: int, question: str, answer: str) -> dict[str, str]:
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    fixed = {"language": "en", "source": "magpie", "teacher": "t", "licence": "MIT", "meta": "{}"}
    return {"id": f"{number:04d}", "messages": json.dumps(said, ensure_ascii=False)} | fixed


@pytest.fixture
def files(tmp_path):
    (tmp_path / "gsm.jsonl").write_text(json.dumps({"question": EN}) + "\n")
    (tmp_path / "ja.txt").write_text(JA + "\n短い\n", encoding="utf-8")
    return (
        ItemFile(name="gsm8k", url=str(tmp_path / "gsm.jsonl"), fields=("question",)),
        ItemFile(name="ja-qa", url=str(tmp_path / "ja.txt")),
    )


def rejects(made) -> list[dict]:
    rows = []
    for entry in made.manifest.rejects:
        with open(f"{made.url}/rejects/{entry.path}", "rb") as file:
            reader = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
            rows += [json.loads(line) for line in reader]
    return rows


def rows_of(made, prefix: str = "") -> list[dict]:
    return [row for batch in read_documents(made, prefix) for row in batch.to_pylist()]


def test_documents_that_hold_an_item_go_with_evidence_and_the_others_pass_as_they_are(tmp_path, files):
    rows = [
        document(1, CLEAN),
        document(2, f"Q: {EN} A: 72", "forum"),
        document(3, f"日記。{JA}以上。"),
        document(4, ""),
    ]
    docs = artifact(tmp_path / "s", "dedup", "x", {"train/0.parquet": table(rows, DOCUMENT)})
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", DecontaminateConfig(files=files), {"docs": docs})
    assert rows_of(made) == [rows[0], rows[3]]
    counts = made.manifest.counts
    assert (counts.in_, counts.out) == (4, 2)
    assert counts.dropped == {"contaminated:gsm8k": 1, "contaminated:ja-qa": 1}
    by_id = {row["id"]: row for row in rejects(made)}
    assert by_id["0002"]["item"] == "0/question"
    assert by_id["0002"]["rule"] == "13 words"
    assert by_id["0002"]["evidence"] == "natalia sold clips to 48 of her friends in april and then she"
    assert by_id["0003"]["similarity"] == 1.0
    assert by_id["0003"]["text"] == rows[2]["text"]
    assert made.manifest.extra["benchmarks"] == {
        "gsm8k": {
            "items": 1, "too_short": 0, "common": 0, "rows": 1, "items_found": 1,
            "rules": {"13 words": 1}, "sources": {"forum": 1},
        },
        "ja-qa": {
            "items": 2, "too_short": 1, "common": 0, "rows": 1, "items_found": 1,
            "rules": {"25 characters": 1}, "sources": {"web": 1},
        },
    }  # fmt: skip


def test_conversations_are_searched_in_all_that_is_said_and_written_back_unchanged(tmp_path, files):
    rows = [conversation(1, "Hi", CLEAN), conversation(2, EN, "72"), conversation(3, "書いて", JA)]
    docs = artifact(tmp_path / "s", "instruct", "x", {"train/0.parquet": table(rows, CHAT)})
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", DecontaminateConfig(files=files), {"docs": docs})
    assert rows_of(made) == rows[:1]
    assert made.manifest.counts.dropped == {"contaminated:gsm8k": 1, "contaminated:ja-qa": 1}


def test_registered_benchmarks_are_made_from_the_heldout_rows_which_pass_untouched(tmp_path):
    heldout = [conversation(9, "Please tell me how the tides of the sea are made by the moon each day.", CLEAN)]
    train = [conversation(1, heldout[0]["id"], "ok"), conversation(2, "Say it", CLEAN), conversation(3, "Hi", "you")]
    files = {"train/0.parquet": table(train, CHAT), "heldout/0.parquet": table(heldout, CHAT)}
    docs = artifact(tmp_path / "s", "instruct", "x", files)
    config = DecontaminateConfig(benchmarks=("instructions",))
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", config, {"docs": docs})
    assert rows_of(made, "train/") == [train[0], train[2]]
    assert read_table(made, "heldout/").equals(read_table(docs, "heldout/"))
    assert made.entry("heldout/0.parquet").sha256 == docs.entry("heldout/0.parquet").sha256
    assert (made.manifest.counts.in_, made.manifest.counts.out) == (4, 3)
    assert rejects(made)[0]["item"] == "0009/2"


def test_heldout_rows_of_another_artifact_can_be_what_is_looked_for(tmp_path):
    text = " ".join(f"word{i}" for i in range(100))
    other = artifact(tmp_path / "s", "dedup", "o", {"heldout/0.parquet": table([document(7, text)], DOCUMENT)})
    rows = [document(1, CLEAN), document(2, "so " + " ".join(text.split()[40:53]))]
    docs = artifact(tmp_path / "s", "synth", "x", {"docs/0.parquet": table(rows, DOCUMENT)})
    config = DecontaminateConfig(benchmarks=("bits_per_byte",), heldout=("o",))
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", config, {"docs": docs, "heldout.0": other})
    assert rows_of(made, "docs/") == rows[:1]


def test_a_benchmark_that_the_heldout_rows_make_no_item_of_is_counted_as_such(tmp_path, caplog):
    docs = artifact(tmp_path / "s", "dedup", "x", {"train/0.parquet": table([document(1, CLEAN)], DOCUMENT)})
    config = DecontaminateConfig(benchmarks=("continuation",))
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", config, {"docs": docs})
    assert made.manifest.counts.out == 1
    assert made.manifest.extra["benchmarks"]["continuation"]["items"] == 0
    assert "benchmark continuation has no item here and is not looked for" in caplog.text


def test_items_of_which_none_can_be_looked_for_stop_the_run(tmp_path):
    docs = artifact(tmp_path / "s", "dedup", "x", {"train/0.parquet": table([document(1, CLEAN)], DOCUMENT)})
    (tmp_path / "short.txt").write_text("too short\n")
    short = DecontaminateConfig(files=(ItemFile(name="s", url=str(tmp_path / "short.txt")),))
    with pytest.raises(ConfigError, match="none of 1 items can be looked for"):
        produce(str(tmp_path / "s"), DECONTAMINATE, "x", short, {"docs": docs})


@pytest.mark.parametrize(("most", "dropped"), [(0, 3), (3, 3), (2, 0)])
def test_phrases_that_many_rows_hold_are_listed_and_not_used(tmp_path, files, most, dropped):
    phrase = "natalia sold clips to 48 of her friends in april and then she"
    rows = [document(i, f"{i} {phrase}!") for i in range(3)] + [document(9, CLEAN)]
    shards = {f"train/{i}.parquet": table([row], DOCUMENT) for i, row in enumerate(rows)}
    docs = artifact(tmp_path / "s", "dedup", "x", shards)
    config = DecontaminateConfig(files=files, max_documents=most)
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", config, {"docs": docs})
    assert made.manifest.counts.dropped.get("contaminated:gsm8k", 0) == dropped
    if most:
        assert made.read_json("common_phrases.json") == ({} if dropped else {phrase: 3})
        assert made.manifest.extra["common_phrases"] == (0 if dropped else 1)


def test_neither_shards_nor_their_order_show_in_which_rows_are_dropped(tmp_path, files):
    rows = [document(i, CLEAN + f" {i}") for i in range(7)] + [document(8, EN), document(9, JA)]

    def kept(name: str, parts: list[list[dict]]) -> list[dict]:
        shards = {f"train/{i}.parquet": table(part, DOCUMENT) for i, part in enumerate(parts)}
        docs = artifact(tmp_path / "s", "dedup", name, shards)
        made = produce(str(tmp_path / "s"), DECONTAMINATE, name, DecontaminateConfig(files=files), {"docs": docs})
        return sorted(rows_of(made), key=lambda row: row["id"])

    expected = kept("one", [rows])
    assert expected == rows[:7]
    assert kept("many", [[row] for row in reversed(rows)]) == expected


def test_the_same_input_gives_the_same_bytes_and_an_interrupted_run_goes_on(tmp_path, files, monkeypatch):
    from tasks.decontaminate import stage

    rows = [document(1, CLEAN), document(2, EN), document(3, CLEAN + " twice")]
    shards = {f"train/{i}.parquet": table([row], DOCUMENT) for i, row in enumerate(rows)}
    docs = artifact(tmp_path / "s", "dedup", "x", shards)
    config = DecontaminateConfig(files=files)
    whole = produce(str(tmp_path / "one"), DECONTAMINATE, "x", config, {"docs": docs})
    calls = []

    def dies(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return stage_search(*arguments)

    stage_search = stage.search
    monkeypatch.setattr(stage, "search", dies)
    with pytest.raises(KeyboardInterrupt):
        produce(str(tmp_path / "two"), DECONTAMINATE, "x", config, {"docs": docs})
    made = produce(str(tmp_path / "two"), DECONTAMINATE, "x", config, {"docs": docs})
    assert len(calls) == 4, "the two finished shards are not searched again"
    assert made.manifest.content_digest == whole.manifest.content_digest
    assert made.manifest.extra == whole.manifest.extra


def test_an_empty_shard_keeps_its_schema(tmp_path, files):
    docs = artifact(tmp_path / "s", "dedup", "x", {"train/0.parquet": DOCUMENT.empty_table()})
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", DecontaminateConfig(files=files), {"docs": docs})
    assert read_table(made).schema.equals(DOCUMENT)
    assert isinstance(read_table(made), pa.Table)
