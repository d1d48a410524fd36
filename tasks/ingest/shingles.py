"""Shingles of texts, their MinHash bands, and the exact similarity of two texts; a batch of texts at a time."""

import hashlib
import itertools
import struct
from collections.abc import Sequence
from typing import Literal

import numpy as np
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module

from tasks.ingest.comparable import code_points
from tasks.ingest.compiled import Load

SKETCH = "rensa-R/2"  # bands of different sketches must never be compared
SKETCH_BATCH = 256  # texts whose shingles and signatures are in memory at once
Shingle = Literal["char", "word"]
BASE = np.uint64(0x100000001B3)
MIX_1, MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_SPACE_CODE = 0x20
_BLOCK = 1 << 13  # tokens hashed at a time: the arrays stay in the nearest cache
_load = Load(100_000_000)  # tokens: by then numpy has cost as much as loading the compiled code does


def text_digest(comparable_text: str) -> bytes:
    """Identity of a text for exact deduplication and for the choice of held-out documents."""
    return hashlib.sha256(comparable_text.encode("utf-8", "surrogatepass")).digest()


def shingles(comparable_text: str, ngram: int, kind: Shingle = "char") -> np.ndarray:
    """The set of n-grams of characters or words as sorted 64-bit hashes; a text of fewer than `ngram` has none."""
    return np.unique(flat_shingles([comparable_text], ngram, kind)[0])


def shingle_sets(hashes: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    """The set of each text, sorted, from what `flat_shingles` gave."""
    return [np.unique(hashes[low:high]) for low, high in itertools.pairwise(offsets.tolist())]


def flat_shingles(texts: Sequence[str], ngram: int, kind: Shingle = "char") -> tuple[np.ndarray, np.ndarray]:
    """The hashes of all n-grams of comparable texts, one text after the other, repeated ones included.

    Returns:
        hashes (uint64) and offsets (uint64, one more than texts): text i has hashes[offsets[i]:offsets[i + 1]].
    """
    tokens, lengths = _words(texts) if kind == "word" else code_points(texts)
    counts = np.maximum(lengths - ngram + 1, 0)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.uint64)
    if not offsets[-1]:
        return np.zeros(0, np.uint64), offsets
    if _load.pays(len(tokens)):
        from tasks.ingest import shingles_compiled  # a second, see _load

        return shingles_compiled.rolled(tokens, lengths, ngram, int(offsets[-1])), offsets
    return rolled(tokens, lengths, ngram), offsets


def rolled(tokens: np.ndarray, lengths: np.ndarray, ngram: int) -> np.ndarray:
    """The hashes of all n-grams of sequences that stand side by side; at least one has an n-gram."""
    width = len(tokens) - ngram + 1
    found = np.empty(width, np.uint64)
    for low in range(0, width, _BLOCK):
        high = min(low + _BLOCK, width)
        part = tokens[low:high].astype(np.uint64)
        for offset in range(1, ngram):
            part *= BASE
            part += tokens[low + offset : high + offset]
        found[low:high] = mixed(part)
    counts = np.maximum(lengths - ngram + 1, 0).tolist()
    starts = (np.cumsum(lengths) - lengths).tolist()
    own = [found[start : start + count] for start, count in zip(starts, counts, strict=True) if count]
    return np.concatenate(own)  # without the n-grams that span two texts


def _words(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """A hash of every word (what stands between two spaces) and how many words each text has."""
    codes, lengths = code_points([text + " " for text in texts])
    letter = codes != _SPACE_CODE
    starts = np.flatnonzero(letter & np.concatenate(([True], ~letter[:-1])))
    if not len(starts):
        return np.zeros(0, np.uint64), np.zeros(len(texts), np.int64)
    first = np.zeros(len(codes), np.int64)
    first[starts] = starts
    place = (np.arange(len(codes)) - np.maximum.accumulate(first)).astype(np.uint64)
    letters = np.where(letter, mixed(codes + (place + np.uint64(1)) * _GOLDEN), np.uint64(0))
    ends = np.searchsorted(starts, np.cumsum(lengths))
    return mixed(np.add.reduceat(letters, starts)), np.diff(ends, prepend=0)


def mixed(values: np.ndarray) -> np.ndarray:
    """Spread the bits (splitmix64's finaliser): MinHash needs hashes that look random. A bijection."""
    values = values ^ (values >> np.uint64(30))
    values *= MIX_1
    values ^= values >> np.uint64(27)
    values *= MIX_2
    values ^= values >> np.uint64(31)
    return values


def signatures(hashes: np.ndarray, offsets: np.ndarray, num_hashes: int, seed: int) -> np.ndarray:
    """MinHash values of each text's shingles (uint32). Shape [texts, num_hashes]."""
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_hashes, seed)
    pack = struct.Struct(f"{num_hashes}I").pack  # twice as fast as any way of numpy's from Python's integers
    values = b"".join([pack(*row) for row in matrix.to_rows()])
    return np.frombuffer(values, np.uint32).reshape(-1, num_hashes)


def band_keys(hashes: np.ndarray, offsets: np.ndarray, shape: tuple[int, int], seed: int) -> np.ndarray:
    """One 64-bit key per band and text: equal keys in one band name a pair of candidates. Shape [texts, bands].

    Args:
        shape: (bands, rows); a key stands for `rows` MinHash values.
    """
    bands, rows = shape
    found = signatures(hashes, offsets, bands * rows, seed).reshape(-1, bands, rows)
    if _load.pays(0):
        from tasks.ingest import shingles_compiled  # loaded by now

        return shingles_compiled.joined(found, band_starts(bands))
    return joined(found, band_starts(bands))


def band_starts(bands: int) -> np.ndarray:
    """What the key of each band starts with, so that bands never meet."""
    return mixed(np.arange(1, bands + 1, dtype=np.uint64))


def joined(found: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """One key for the values of each text and band. Shape [texts, bands, rows] -> [texts, bands]."""
    keys = np.broadcast_to(starts, found.shape[:2])
    for row in range(found.shape[2]):
        keys = mixed(keys ^ found[:, :, row])
    return keys


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Exact similarity of two sorted sets; two empty ones have none."""
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / max(len(left) + len(right) - shared, 1)
