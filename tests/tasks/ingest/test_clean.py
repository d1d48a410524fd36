"""From raw pages to documents: each drop has its reason, and the number of workers changes nothing."""

import json
import random
from pathlib import Path

import pytest
import zstandard

from tasks.artifact import Artifact, produce
from tasks.errors import DataFault
from tasks.ingest.clean import CLEAN
from tasks.ingest.config import CleanConfig, MirrorConfig, SourceConfig
from tasks.ingest.mirror import MIRROR
from tasks.records import DOCUMENT
from tasks.shards import read_table

SENTENCES = [
    "この章では、システムを導入する前に確かめておくべきことを順に説明していきます。",
    "必要な部品がそろっているかどうかは、箱を開けてすぐに調べておくと安心できます。",
    "分からない言葉が出てきたときは、巻末にまとめた用語集を先に読んでみてください。",
    "設定を変えたあとは、必ず一度電源を切り、もう一度はじめから動かして確かめます。",
    "うまく動かない場合には、記録に残された文を読むと原因を見つけやすくなります。",
    "古い版から移るときの注意は、別の冊子に分けて書いてありますので参照してください。",
]
ENGLISH = (
    "This chapter explains what you should check before you install the system, and why it is worth the time. " * 8
)


def japanese(seed: int) -> str:
    rng = random.Random(seed)
    words = ["山", "川", "森", "海", "空", "町", "村", "駅", "店", "庭", "橋", "道", "寺", "城", "港", "島"]
    lines = [f"{rng.choice(words)}と{rng.choice(words)}について、{rng.choice(SENTENCES)}" for _ in range(14)]
    return "".join(f"<p>{line}</p>" for line in dict.fromkeys(lines))


def html(body: str, charset: str = "utf-8") -> bytes:
    return (
        f'<html><head><meta charset="{charset}"><title>題 {len(body)}</title></head><body>{body}</body></html>'.encode(
            {"Shift_JIS": "cp932"}.get(charset, charset)
        )
    )


PAGES = {
    "good/utf8.html": html(japanese(1)),
    "good/sjis.html": html(japanese(2), "Shift_JIS"),
    "good/euc.html": html(japanese(3), "euc-jp"),
    "drop/garbage.html": bytes(range(256)) * 40,
    "drop/empty.html": html("<script>x</script>"),
    "drop/zero.html": b"",
    "drop/english.html": html(f"<p>{ENGLISH}</p>"),
    "drop/short.html": html("<p>短い文です。これだけしかありません。</p>"),
    "drop/repeat.html": html(f"<p>{SENTENCES[0]}</p>" * 30),
    "drop/katakana.html": html(
        "".join(f"<p>{chr(0x30A2 + i)}カナダケノブンショウガツヅキマス。</p>" for i in range(40))
    ),
    "drop/line.html": html("<p>" + "あいうえおかきくけこさしすせそ" * 60 + "</p>"),
}
REASONS = {
    "drop/garbage.html": "garbage",
    "drop/empty.html": "empty",
    "drop/zero.html": "empty",
    "drop/english.html": "language:en",
    "drop/short.html": "too_short",
    "drop/repeat.html": "duplicate_lines",
    "drop/katakana.html": "low_hiragana",
    "drop/line.html": "long_sentences",
}
CONFIG = CleanConfig(language="ja", workers=1).with_changes({"filters.character_ngrams": None})


def mirror(tmp_path: Path, pages: dict[str, bytes], **fields) -> Artifact:
    for name, content in pages.items():
        (tmp_path / "html" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "html" / name).write_bytes(content)
    source = SourceConfig(
        kind="html", name="pages", licence="MIT", attribution="Us", location=str(tmp_path / "html"), **fields
    )
    return produce(str(tmp_path / "store"), MIRROR, "x", MirrorConfig(sources=(source,), shard_pages=4), {})


def clean(store: Path, pages: Artifact, config: CleanConfig = CONFIG) -> Artifact:
    return produce(str(store), CLEAN, "x", config, {"pages": pages})


def rejected(artifact: Artifact) -> dict[str, str]:
    files = sorted(Path(artifact.url.removeprefix("file://")).glob("rejects/**/*.zst"))
    lines = [zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read() for file in files]
    return {row["url"]: row["reason"] for text in lines for row in map(json.loads, text.splitlines())}


def test_good_pages_become_documents_and_every_other_has_its_reason(tmp_path):
    made = clean(tmp_path / "store", mirror(tmp_path, PAGES))
    documents = read_table(made, "docs/")
    assert documents.schema == DOCUMENT
    assert sorted(documents.column("url").to_pylist()) == ["good/euc.html", "good/sjis.html", "good/utf8.html"]
    assert rejected(made) == REASONS
    assert made.manifest.counts.in_ == len(PAGES)
    assert made.manifest.counts.out == 3
    assert made.manifest.licences == ("MIT",)


def test_a_document_carries_its_origin_language_licence_and_facts(tmp_path):
    made = clean(tmp_path / "store", mirror(tmp_path, {"a.html": html(japanese(1), "Shift_JIS")}))
    [row] = read_table(made, "docs/").to_pylist()
    assert (row["url"], row["source"], row["language"], row["licence"]) == ("a.html", "pages", "ja", "MIT")
    facts = json.loads(row["meta"])
    assert facts["encoding"] == "cp932"
    assert facts["title"].startswith("題 ")
    lines = [line for line in row["text"].split("\n") if line]
    assert lines == [line.removeprefix("<p>") for line in japanese(1).split("</p>") if line]


@pytest.mark.parametrize("workers", [2])
def test_any_number_of_workers_gives_the_same_bytes(tmp_path, workers):
    pages = mirror(tmp_path, PAGES | {f"more/{i}.html": html(japanese(10 + i)) for i in range(9)})
    one = clean(tmp_path / "one", pages)
    many = clean(tmp_path / "many", pages, CONFIG.with_changes({"workers": workers}))
    assert many.manifest.content_digest == one.manifest.content_digest
    assert many.manifest.fingerprint == one.manifest.fingerprint
    assert many.manifest.counts == one.manifest.counts
    assert rejected(many) == rejected(one)


def test_pages_that_are_said_to_be_in_another_language_are_dropped_with_it(tmp_path):
    pages = mirror(tmp_path, {"a.html": html(japanese(1)), "b.html": html(japanese(2))}, language_hint="en")
    with pytest.raises(DataFault, match=r"none of 2 pages is kept \(language:en 2\)"):
        clean(tmp_path / "store", pages)


def test_pages_of_another_kind_are_dropped(tmp_path):
    with pytest.raises(DataFault, match=r"none of 1 pages is kept \(content_type 1\)"):
        clean(tmp_path / "store", mirror(tmp_path, {"a.html": html(japanese(1))}), CleanConfig(language="python"))


def test_lines_of_foreign_prose_are_cut_and_counted(tmp_path):
    mixed = {"a.html": html(japanese(1) + f"<p>{ENGLISH}</p>" + japanese(2))}
    config = CONFIG.with_changes({"min_foreign_words": 6})
    [row] = read_table(clean(tmp_path / "store", mirror(tmp_path, mixed), config), "docs/").to_pylist()
    assert "chapter" not in row["text"]
    assert json.loads(row["meta"])["cut_chars"] > 500


def test_a_page_that_hangs_the_extractor_is_a_reject(tmp_path):
    pages = {"a.html": html(japanese(1)), "b.html": b"<div>" * 400_000 + b"x", "c.html": html(japanese(2))}
    made = clean(
        tmp_path / "store",
        mirror(tmp_path, pages),
        CONFIG.with_changes({"extract_timeout_s": 2, "extractor": "resiliparse"}),
    )
    assert rejected(made) == {"b.html": "extract_timeout"}
    assert made.manifest.counts.out == 2


def test_a_moved_threshold_moves_the_documents_with_it(tmp_path):
    pages = mirror(tmp_path, {"a.html": html(japanese(1)), "b.html": html(japanese(1) + japanese(2))})
    rows = read_table(clean(tmp_path / "store", pages), "docs/").to_pylist()
    size = min(len(row["text"]) for row in rows)
    at = clean(tmp_path / "store", pages, CONFIG.with_changes({"filters.length.min_chars": size}))
    above = clean(tmp_path / "store", pages, CONFIG.with_changes({"filters.length.min_chars": size + 1}))
    assert (at.manifest.counts.out, above.manifest.counts.out) == (2, 1)
    assert above.manifest.counts.dropped == {"too_short": 1}


def test_python_files_are_cleaned_without_extraction(tmp_path):
    source = SourceConfig(
        kind="python_source", name="stdlib", licence="PSF-2.0", attribution="PSF", include=("json/*.py", "this.py")
    )
    pages = produce(str(tmp_path), MIRROR, "py", MirrorConfig(sources=(source,)), {})
    made = clean(tmp_path, pages, CleanConfig(language="python", workers=1))
    texts = {row["url"]: row["text"] for row in read_table(made, "docs/").to_pylist()}
    import json.decoder

    assert texts["python:json/decoder.py"] == Path(json.decoder.__file__).read_text("utf-8")
    assert made.manifest.counts.in_ == made.manifest.counts.out + sum(made.manifest.counts.dropped.values())
