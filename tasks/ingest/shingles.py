"""Shingles of a text, their MinHash bands, and the exact similarity of two texts."""

import hashlib
import re
import unicodedata

import numpy as np
from rensa import RMinHash  # pyright: ignore[reportAttributeAccessIssue] - a compiled module

from tasks.ingest.texts import code_points

SKETCH = "rensa-R/1"  # bands of different sketches must never be compared
_BASE = np.uint64(0x100000001B3)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SPACE = re.compile(r"\s+")


def comparable(text: str) -> str:
    """What two texts are compared by: NFKC, lower case, one space between words. Layout and width do not count."""
    return _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def text_digest(comparable_text: str) -> bytes:
    """Identity of a text for exact deduplication and for the choice of held-out documents."""
    return hashlib.sha256(comparable_text.encode("utf-8", "surrogatepass")).digest()


def shingles(comparable_text: str, ngram: int) -> np.ndarray:
    """The set of character n-grams as sorted 64-bit hashes; a shorter text is one shingle (none if it is empty)."""
    codes = code_points(comparable_text).astype(np.uint64)
    if not len(codes):
        return codes
    width = min(ngram, len(codes))
    hashes = np.zeros(len(codes) - width + 1, np.uint64)
    for offset in range(width):
        hashes = hashes * _BASE + codes[offset : len(codes) - width + 1 + offset]
    return np.unique(_mixed(hashes))


def _mixed(values: np.ndarray) -> np.ndarray:
    """Spread the bits (splitmix64's finaliser): MinHash needs hashes that look random. A bijection."""
    values = (values ^ (values >> np.uint64(30))) * _MIX_1
    values = (values ^ (values >> np.uint64(27))) * _MIX_2
    return values ^ (values >> np.uint64(31))


def band_keys(sets: list[np.ndarray], bands: int, rows: int, seed: int) -> np.ndarray:
    """One 64-bit key per band and set: equal keys in one band name a pair of candidates. Shape [sets, bands]."""
    if not sets:
        return np.zeros((0, bands), np.uint64)
    offsets = np.cumsum([0, *map(len, sets)]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, bands * rows, seed)
    hashes = np.array(matrix.to_rows(), np.uint64).reshape(len(sets), bands, rows)
    keys = np.zeros((len(sets), bands), np.uint64)
    for row in range(rows):
        keys = _mixed(keys ^ hashes[:, :, row])
    return keys


def jaccard(left: np.ndarray, right: np.ndarray) -> float:
    """Exact similarity of two sorted sets; two empty ones are equal."""
    if not len(left) and not len(right):
        return 1.0
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
