"""From band keys to components: who shares a bucket with whom, directly or over others.

Documents of two components never share a bucket, so each can be decided by itself.
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from tasks.errors import DataFault
from tasks.ingest.dedup.corpus import Corpus, DropReader
from tasks.ingest.dedup.exact import repeated
from tasks.ingest.dedup.index import ROW_BITS, Shard, fixed_words, read_index
from tasks.ingest.dedup.spill import Records, num_parts, part_of

_ENTRY = np.dtype([("key", "<u8"), ("doc", "<i8")])
_EDGE = np.dtype([("left", "<i8"), ("right", "<i8")])
_WORK = 4  # grouping holds so many times the records of a part
_NODE_BYTES = 64  # of a document that shares a bucket, while components are made


@dataclass(frozen=True)
class Crowd:
    """Documents that share a bucket with another one, sorted, and the component of each."""

    docs: np.ndarray
    labels: np.ndarray
    edges: int  # how many links of a document to its bucket's first there are

    def of(self, shard: Shard) -> slice:
        """Where the documents of a shard are."""
        low, high = np.searchsorted(self.docs, (shard.number << ROW_BITS, (shard.number + 1) << ROW_BITS))
        return slice(int(low), int(high))


def crowd(corpus: Corpus, exact: Records) -> Crowd:
    """Documents that share a bucket, without exact copies; buckets of old documents alone do not count."""
    entries = _entries(corpus, exact)
    edges = corpus.records("edges", _EDGE)
    for part in sorted(entries.counts):
        edges.add(_stars(entries.read(part), corpus))
    edges.flush()
    entries.remove()
    found = components(edges, corpus)
    edges.remove()
    return found


def _entries(corpus: Corpus, exact: Records) -> Records:
    bands = corpus.config.bands
    parts = num_parts(corpus.total * bands * _ENTRY.itemsize * _WORK, corpus.config.memory_bytes // 2)
    entries = corpus.records("bands", _ENTRY)
    drops = DropReader(corpus, exact)
    for shard in corpus.shards:
        table, docs = read_index(shard, ["bands"])
        if not len(docs):
            continue
        stays = table["bands"].is_valid().to_numpy() & ~np.isin(docs, drops.of(shard)["doc"])
        keys = fixed_words(table["bands"], bands)[stays]
        found = np.empty(keys.size, _ENTRY)
        found["key"], found["doc"] = keys.ravel(), np.repeat(docs[stays], bands)
        entries.add(found, part_of(found["key"], parts))
    entries.flush()
    return entries


def _stars(entries: np.ndarray, corpus: Corpus) -> np.ndarray:
    """A link of each document to the first of its bucket."""
    keys = np.ascontiguousarray(entries["key"])
    some = repeated(keys)
    keys, docs = keys[some], entries["doc"][some]
    order = np.argsort(keys)
    keys, docs = keys[order], docs[order]
    begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if len(keys) else np.zeros(0, np.int64)
    sizes = np.diff(np.append(begins, len(keys)))
    first = np.repeat(np.minimum.reduceat(docs, begins), sizes) if len(keys) else docs
    links = (docs != first) & ~corpus.is_old(first)  # new documents have the lower numbers: an old first is of old ones
    found = np.empty(int(links.sum()), _EDGE)
    found["left"], found["right"] = first[links], docs[links]
    return found


def components(edges: Records, corpus: Corpus) -> Crowd:
    """The components of a graph whose edges are on disk. Memory holds its nodes and some of its edges.

    Raises:
        DataFault: the nodes alone need more than `memory_bytes`.
    """
    memory = corpus.config.memory_bytes
    rows = max(1 << 10, memory // (4 * _NODE_BYTES))
    nodes = np.zeros(0, np.int64)
    for chunk in edges.chunks(rows):
        nodes = _distinct(np.concatenate((nodes, _distinct(chunk["left"]), _distinct(chunk["right"]))))
        if len(nodes) * _NODE_BYTES > memory:
            raise DataFault(
                f"memory_bytes={memory:,} cannot hold the components of {len(nodes):,} or more documents that share a "
                f"bucket with another ({_NODE_BYTES} bytes each): links may join any two of them. Raise memory_bytes "
                f"to {corpus.total * _NODE_BYTES:,}, which is enough for all {corpus.total:,} documents, or raise rows "
                f"({corpus.config.rows}), so that fewer meet."
            )
    labels = np.arange(len(nodes), dtype=np.int32)
    for chunk in edges.chunks(rows):
        left, right = (labels[np.searchsorted(nodes, chunk[side])] for side in ("left", "right"))
        size = int(labels.max()) + 1
        graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(size, size))
        labels = connected_components(graph, directed=False)[1][labels]
    return Crowd(nodes, labels, len(edges))


def _distinct(values: np.ndarray) -> np.ndarray:
    """Sorted, each once: `np.unique` hashes instead, which takes several times as long here."""
    ordered = np.sort(values)
    fresh = np.ones(len(ordered), bool)
    fresh[1:] = ordered[1:] != ordered[:-1]
    return ordered[fresh]
