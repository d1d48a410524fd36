"""Files of items: every format, nested fields, and what is wrong with them said before anything is dropped."""

import bz2
import gzip
import json
import lzma

import pytest
import zstandard
from pydantic import ValidationError

from tasks.decontaminate.config import DecontaminateConfig, ItemFile
from tasks.decontaminate.files import digest_of, read_items, suffix_of
from tasks.errors import ConfigError, DataFault

ROWS = [{"qid": "a", "q": "first", "turns": ["t1", "t2"], "in": {"deep": "d1"}}, {"qid": "b", "q": "zweite ✓"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def items(path, *fields, id_field=""):
    return list(read_items(str(path), fields, id_field))


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.jsonl", bytes),
        ("x.jsonl.gz", gzip.compress),
        ("x.ndjson.bz2", bz2.compress),
        ("x.jsonl.xz", lzma.compress),
        ("x.jsonl.zst", zstandard.ZstdCompressor().compress),
    ],
)
def test_json_lines_packed_in_every_way(tmp_path, name, pack):
    (tmp_path / name).write_bytes(pack(LINES))
    assert items(tmp_path / name, "q") == [("0/q", "first"), ("1/q", "zweite ✓")]
    assert items(tmp_path / name, "q", "turns", "in.deep", id_field="qid") == [
        ("a/q", "first"), ("a/turns", "t1"), ("a/turns/2", "t2"), ("a/in.deep", "d1"), ("b/q", "zweite ✓"),
    ]  # fmt: skip


def test_json_lists_and_nested_objects_as_in_squad_and_pubmedqa(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "c1", "qas": [{"question": "q1"}, {"question": "q2"}]}]}]}
    (tmp_path / "s.json").write_text(json.dumps(squad))
    found = items(tmp_path / "s.json", "data.paragraphs.context", "data.paragraphs.qas.question")
    assert [text for _, text in found] == ["c1", "q1", "q2"]
    assert len({name for name, _ in found}) == 3
    (tmp_path / "p.json").write_text(json.dumps({"123": {"QUESTION": "q"}, "124": {"QUESTION": "r"}}))
    assert [text for _, text in items(tmp_path / "p.json", "*.QUESTION")] == ["q", "r"]
    (tmp_path / "l.json").write_text(json.dumps(ROWS))
    assert items(tmp_path / "l.json", "q", id_field="qid") == [("a/q", "first"), ("b/q", "zweite ✓")]


def test_tables_by_number_and_by_name_and_plain_lines(tmp_path):
    (tmp_path / "m.tsv").write_text('Was "ist" das?\t3\nUnd das\t4\n', encoding="utf-8")
    assert items(tmp_path / "m.tsv", "0") == [("0/0", 'Was "ist" das?'), ("1/0", "Und das")]
    (tmp_path / "c.csv").write_text('id,question\n7,"a, b"\n8,"two\nlines"\n', encoding="utf-8-sig")
    assert items(tmp_path / "c.csv", "question", id_field="id") == [
        ("7/question", "a, b"),
        ("8/question", "two\nlines"),
    ]
    (tmp_path / "t.txt").write_text("one\n\ntwo\n")
    assert items(tmp_path / "t.txt") == [("0", "one"), ("1", "two")]


def test_a_field_that_no_row_has_stops_the_run_and_names_those_that_are_there(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(LINES)
    with pytest.raises(ConfigError, match=r"no row has a text in question; the first one has qid, q, turns, in"):
        items(tmp_path / "x.jsonl", "question")
    with pytest.raises(DataFault, match=r"row 1 has no 'turns'"):
        items(tmp_path / "x.jsonl", "q", id_field="turns")
    with pytest.raises(ConfigError, match="are not there"):
        items(tmp_path / "absent.jsonl", "q")


@pytest.mark.parametrize(
    "damaged",
    [gzip.compress(LINES)[:-20], b"\x1f\x8bxx", gzip.compress(b'{"q": "\xff"}')],
    ids=["cut off", "not gzip at all", "not UTF-8"],
)
def test_a_damaged_file_is_never_read_in_part(tmp_path, damaged):
    (tmp_path / "x.jsonl.gz").write_bytes(damaged)
    with pytest.raises(DataFault, match="read in part leaves the rest unprotected"):
        items(tmp_path / "x.jsonl.gz", "q")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"benchmarks": (), "files": ()}, "both blank"),
        ({"benchmarks": ("mmlu",)}, "is not one of bits_per_byte, continuation, instructions"),
        ({"min_words": 14}, "min_words=14 is above word_ngram=13"),
        ({"min_chars": 26}, "min_chars=26 is above char_ngram=25"),
        ({"files": ({"name": "continuation", "url": "x.txt"},)}, "named twice: continuation"),
        ({"files": ({"name": "x", "url": "x.parquet", "fields": ("q",)},)}, "items are read from .jsonl"),
        ({"files": ({"name": "x", "url": "x.jsonl"},)}, "Name the fields"),
        ({"files": ({"name": "x", "url": "x.txt.gz", "fields": ("q",)},)}, "leave them out for .txt"),
    ],
)
def test_a_config_that_protects_nothing_is_refused(changes, words):
    with pytest.raises(ValidationError, match=words):
        DecontaminateConfig(benchmarks=("continuation",)).with_changes(changes)


def test_the_identity_of_a_file_is_what_it_holds_and_not_where_it_is(tmp_path):
    for place in ("a.jsonl", "b.jsonl"):
        (tmp_path / place).write_bytes(LINES)
    configs = [
        DecontaminateConfig(files=(ItemFile(name="x", url=str(tmp_path / place), fields=("q",)),))
        for place in ("a.jsonl", "b.jsonl")
    ]
    assert configs[0].semantic() == configs[1].semantic()
    assert configs[0].semantic()["files"][0]["sha256"] == digest_of(str(tmp_path / "a.jsonl"))
    (tmp_path / "b.jsonl").write_bytes(LINES + LINES)
    assert configs[0].semantic() != configs[1].semantic()


@pytest.mark.parametrize(
    ("url", "suffix"),
    [("a.b/c.jsonl.gz", ".jsonl"), ("gs://b/x.ndjson", ".jsonl"), ("x.tsv", ".tsv"), ("x.gz", ""), ("noname", "")],
)
def test_the_format_is_told_by_the_name(url, suffix):
    assert suffix_of(url) == suffix
