"""Documents of two kinds that a classifier can tell apart, and a classifier that was really trained on them."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tasks.artifact import Artifact, produce
from tasks.classify.classifier import CLASSIFIER, trainer_python
from tasks.classify.config import ClassifierConfig, ContrastConfig, Side
from tasks.classify.labels.contrast import CONTRAST
from tasks.errors import ConfigError
from tasks.records import DOCUMENT, document_id, table
from tests.tasks.artifacts import artifact

LEARNED = (
    "光合成は葉緑体で行われる。",
    "水は水素と酸素から成る。",
    "三平方の定理を証明する。",
    "細胞は膜に包まれている。",
)
SHOP = ("送料無料で今すぐ購入。", "ログインはこちら。", "メニュー トップ 一覧。", "ランキング第一位の商品。")
SMALL = {"buckets": 2000, "dim": 4, "min_count": 1, "epochs": 10, "learning_rate": 0.5}


def document(text: str, source: str, number: int, **facts: str) -> dict[str, str]:
    url = f"test:{source}/{number}"
    return {
        "id": document_id(source, url, text),
        "text": text,
        "url": url,
        "source": source,
        "language": "ja",
        "licence": "CC-BY-SA-4.0",
        "crawl_time": "",
        "meta": "{}",
    } | facts


def texts(pool: Sequence[str], count: int, seed: int) -> list[str]:
    """Different texts of a kind: some of its sentences, and a number."""
    draw = random.Random(seed)
    return [f"{''.join(draw.choices(pool, k=3))}\n第{seed}の{n}。" for n in range(count)]


def corpus(store: Path, name: str, shards: Mapping[str, Sequence[Mapping[str, str]]]) -> Artifact:
    files = {f"docs/{path}.parquet": table(list(rows), DOCUMENT) for path, rows in shards.items()}
    return artifact(store, "clean", name, files, notes={"licences": ["CC-BY-SA-4.0"]})


@pytest.fixture(scope="session")
def trains() -> None:
    """Skips where there is no environment to train in."""
    try:
        trainer_python()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """120 documents to learn from and 180 of a shop, in three shards."""
    rows = [document(text, "wiki", n) for n, text in enumerate(texts(LEARNED, 120, 1))]
    rows += [document(text, "shop", n) for n, text in enumerate(texts(SHOP, 180, 2))]
    random.Random(0).shuffle(rows)
    shards = {"0": rows[:90], "1": rows[90:210], "2": rows[210:]}
    return corpus(tmp_path_factory.mktemp("mixed") / "store", "mixed", shards)


def contrast_config(**changes: object) -> ContrastConfig:
    config = ContrastConfig(
        documents=("d",),
        positives=(Side(input=0, sources=("wiki",)),),
        negatives=(Side(input=0, sources=("shop",)),),
        heldout_fraction=0.3,
    )
    return config.with_changes(changes)


@pytest.fixture(scope="session")
def examples(mixed: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    store = str(tmp_path_factory.mktemp("examples") / "store")
    return produce(store, CONTRAST, "two", contrast_config(), {"documents.0": mixed})


@pytest.fixture(scope="session")
def classifier(trains: None, examples: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    store = str(tmp_path_factory.mktemp("classifier") / "store")
    return produce(store, CLASSIFIER, "two", ClassifierConfig(**SMALL), {"examples": examples})
