"""Buckets and components on disk against dicts and a slow union of sets."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import DataFault
from tasks.ingest.dedup.buckets import _EDGE, _ENTRY, _stars, components
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.corpus import Corpus
from tasks.ingest.dedup.exact import repeated
from tasks.ingest.dedup.index import ROW_BITS, Shard
from tasks.ingest.dedup.spill import Records, num_parts, part_of
from tasks.ingest.shingles import mixed


def corpus(folder: Path, shards: int = 1, old: int = 0, memory: int = 8 << 20) -> Corpus:
    made = tuple(Shard(i, f"{i}.parquet", "", (), old=i >= shards) for i in range(shards + old))
    return Corpus(made, (100,) * len(made), DedupConfig(memory_bytes=memory), folder)


def slow_components(edges: list[tuple[int, int]]) -> set[frozenset[int]]:
    sets: list[set[int]] = []
    for edge in edges:
        joined = set(edge).union(*(s for s in sets if s & set(edge)))
        sets = [s for s in sets if not s & set(edge)] + [joined]
    return {frozenset(s) for s in sets}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60))
@settings(max_examples=30, deadline=None)
def test_components_are_those_of_joined_sets(tmp_path_factory, edges):
    folder = tmp_path_factory.mktemp("edges")
    records = Records(folder / "edges", _EDGE, 100)
    for edge in edges:
        records.add(np.array([edge], _EDGE))
    records.flush()
    found = components(records, corpus(folder))
    sets: dict[int, set[int]] = {}
    for doc, label in zip(found.docs.tolist(), found.labels.tolist(), strict=True):
        sets.setdefault(label, set()).add(doc)
    assert {frozenset(members) for members in sets.values()} == slow_components(edges)


def test_components_do_not_depend_on_how_many_edges_are_read_at_a_time(tmp_path):
    rng = np.random.default_rng(0)
    edges = np.empty(200_000, _EDGE)
    edges["left"], edges["right"] = rng.integers(0, 100_000, (2, len(edges)))
    records = Records(tmp_path / "edges", _EDGE, 1 << 20)
    records.add(edges)
    records.flush()
    few, all_ = (components(records, corpus(tmp_path, memory=memory)) for memory in (8 << 20, 1 << 30))
    assert np.array_equal(few.docs, all_.docs)
    pairs = np.unique(np.stack((few.labels, all_.labels)), axis=1)
    assert pairs.shape[1] == len(np.unique(few.labels)) == len(np.unique(all_.labels))


def test_too_many_nodes_for_the_declared_memory_are_said(tmp_path):
    edges = np.empty(200_000, _EDGE)
    edges["left"], edges["right"] = np.arange(200_000), 0
    records = Records(tmp_path / "edges", _EDGE, 1 << 20)
    records.add(edges)
    records.flush()
    with pytest.raises(DataFault, match=r"memory_bytes=8,388,608 cannot hold .* share a bucket .*Raise memory_bytes"):
        components(records, corpus(tmp_path))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 30)), max_size=60))
@settings(max_examples=50, deadline=None)
def test_each_bucket_with_a_new_document_is_a_star(tmp_path_factory, entries):
    """Documents of shards 0 and 1 are new, those of shard 2 are old."""
    whole = corpus(tmp_path_factory.mktemp("stars"), shards=2, old=1)
    numbers = [(key, ((doc % 3) << ROW_BITS) + doc) for key, doc in set(entries)]
    records = np.array([(int(mixed(np.array([key], np.uint64))[0]), doc) for key, doc in numbers], _ENTRY)
    found = {(int(edge["left"]), int(edge["right"])) for edge in _stars(records, whole)}
    buckets: dict[int, list[int]] = {}
    for key, doc in numbers:
        buckets.setdefault(key, []).append(doc)
    expected = {(min(docs), doc) for docs in buckets.values() for doc in docs if doc != min(docs)}
    assert found == {(first, doc) for first, doc in expected if first < 2 << ROW_BITS}


@given(st.lists(st.integers(0, 50), max_size=80))
def test_repeated_finds_all_that_stand_there_twice(values):
    hashes = mixed(np.array(values, np.uint64))
    found = set(repeated(hashes).tolist())
    assert {i for i, value in enumerate(values) if values.count(value) > 1} <= found


def test_repeated_finds_little_else():
    hashes = mixed(np.arange(1_000_000, dtype=np.uint64))
    hashes[:1000] = hashes[1000:2000]
    assert 2000 <= len(repeated(hashes)) < 100_000


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_records_come_back_from_their_parts_in_the_order_they_went_in(tmp_path_factory, values, parts):
    records = Records(tmp_path_factory.mktemp("spill") / "r", np.dtype([("v", "<u8")]), 40)
    hashes = np.array(values, np.uint64)
    part = part_of(hashes, parts)
    assert all(0 <= p < parts for p in part.tolist())
    for i in range(0, len(values), 7):
        records.add(hashes[i : i + 7].view(records.dtype), part[i : i + 7])
    records.flush()
    for p in range(parts):
        expected = [v for v, own in zip(values, part.tolist(), strict=True) if own == p]
        assert records.read(p)["v"].tolist() == expected
        assert [v for chunk in records.chunks(3, p) for v in chunk["v"].tolist()] == expected
    assert len(records) == len(values)


def test_parts_are_as_many_as_needed_and_no_more_than_files_may_be():
    assert (num_parts(0, 10), num_parts(10, 10), num_parts(11, 10)) == (1, 1, 2)
    assert num_parts(10**15, 10) == 4096
    rng = random.Random(0)
    hashes = np.array([rng.getrandbits(64) for _ in range(40_000)], np.uint64)
    assert np.bincount(part_of(hashes, 4)).min() > 9_500
