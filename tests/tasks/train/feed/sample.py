"""Documents and conversations of several sources, and a feed of them."""

import numpy as np

from tasks.train.feed.batches import Batches
from tasks.train.feed.sources import open_sources
from tasks.train.feed.streams import FeedConfig
from tests.tasks.training_data import chat, document, turns

WORDS = "one two three quick brown fox jumps over lazy dogs 日本語 を 話します".split()  # noqa: SIM905
RNG = np.random.default_rng(7)


def sentence(longest: int) -> str:
    return " ".join(RNG.choice(WORDS, RNG.integers(1, longest)))


DOCUMENTS = {
    name: [document(sentence(longest), source=name) for _ in range(n)]
    for name, n, longest in (("ja", 23, 60), ("en", 31, 20), ("code", 9, 90))
}
CHATS = {
    "a": [chat(turns(*(sentence(12) for _ in range(2 * RNG.integers(1, 4))))) for _ in range(60)],
    "b": [chat(turns(*(sentence(9) for _ in range(3)))) for _ in range(40)],
}


def open_feed(packs, tokenizer, kind="text", host=0, hosts=1, **changes):
    """The config, the sources, and the batches of a host."""
    cfg = FeedConfig(**({"kind": kind, "seq_len": 64, "rows": 4, "streams": 2, "seed": 1} | changes))
    sources = open_sources(packs[kind].local_dir(), packs[kind].read_json("mixture.json"), cfg.seed)
    return cfg, sources, Batches(sources, tokenizer, cfg, host, hosts)


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )
