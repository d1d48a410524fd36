"""Japanese pages for tests of the stages after the mirror: good ones, and one for each reason to drop a page.

Run as a program (`python -m tests.tasks.ingest.corpus STORE PAGES WORKERS`) it cleans the pages at the URL PAGES, so
that a test can kill it.
"""

import json
import random
import resource
import sys
from pathlib import Path

from tasks.artifact import Artifact, open_artifact, produce
from tasks.ingest.clean import CLEAN
from tasks.ingest.config import CleanConfig, MirrorConfig, SourceConfig
from tasks.ingest.mirror import MIRROR

SENTENCES = [
    "この章では、システムを導入する前に確かめておくべきことを順に説明していきます。",
    "必要な部品がそろっているかどうかは、箱を開けてすぐに調べておくと安心できます。",
    "分からない言葉が出てきたときは、巻末にまとめた用語集を先に読んでみてください。",
    "設定を変えたあとは、必ず一度電源を切り、もう一度はじめから動かして確かめます。",
    "うまく動かない場合には、記録に残された文を読むと原因を見つけやすくなります。",
    "古い版から移るときの注意は、別の冊子に分けて書いてありますので参照してください。",
]
WORDS = list("山川森海空町村駅店庭橋道寺城港島")
ENGLISH = (
    "This chapter explains what you should check before you install the system, and why it is worth the time. " * 8
)


def japanese(seed: int) -> str:
    rng = random.Random(seed)
    lines = [f"{rng.choice(WORDS)}と{rng.choice(WORDS)}について、{rng.choice(SENTENCES)}" for _ in range(14)]
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


def mirror(tmp_path: Path, pages: dict[str, bytes], shard_pages: int = 4, **fields) -> Artifact:
    for name, content in pages.items():
        (tmp_path / "html" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "html" / name).write_bytes(content)
    source = SourceConfig(
        kind="html", name="pages", licence="MIT", attribution="Us", location=str(tmp_path / "html"), **fields
    )
    return produce(str(tmp_path / "store"), MIRROR, "x", MirrorConfig(sources=(source,), shard_pages=shard_pages), {})


def clean(store: Path, pages: Artifact, config: CleanConfig = CONFIG) -> Artifact:
    return produce(str(store), CLEAN, "x", config, {"pages": pages})


def many(number: int) -> dict[str, bytes]:
    """So many pages, good and bad in turn."""
    bad = sorted(REASONS)
    return {
        f"many/{i:05}.html": PAGES[bad[i % len(bad)]] if i % 3 == 2 else html(japanese(100 + i)) for i in range(number)
    }


def wordy(number: int) -> dict[str, bytes]:
    """So many pages of about 150 KB that are kept."""
    lines = [f"{a}と{b}について、{sentence}" for a in WORDS for b in WORDS for sentence in SENTENCES]
    pages = {}
    for seed in range(number):
        chosen = random.Random(seed).sample(lines, 1000)
        pages[f"wordy/{seed:05}.html"] = html("".join(f"<p>{line}</p>" for line in chosen))
    return pages


if __name__ == "__main__":
    store_, pages_, workers_ = sys.argv[1:]
    clean(store_, open_artifact(pages_), CONFIG.with_changes({"workers": int(workers_)}))
    peaks = {"self": resource.RUSAGE_SELF, "children": resource.RUSAGE_CHILDREN}
    print(json.dumps({who: resource.getrusage(number).ru_maxrss * 1024 for who, number in peaks.items()}))
