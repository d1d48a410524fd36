"""How many duplicates the sketch finds: pairs of known similarity, planted in real text, against the theory."""

import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.ingest.comparable import comparable, comparables
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.shingles import band_keys, flat_shingles, jaccard, shingle_sets

STRATA = (0.0, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)
MAX_CHARS = 4000  # of a text that is edited


def measure_recall(config: DedupConfig, texts: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Recall of the sketch by true similarity, and the precision of what would be removed.

    Plants `config.recall_pairs` pairs: a text and a copy with so many random edits that similarities spread evenly
    from 0.6 to 1. True similarities are those of sets of strings, independent of the hashes. Deterministic.

    Returns:
        strata (similarity from, to, pairs, recall, what theory expects), removed, precision (None without a removal),
        unrelated (pairs of different texts) and how many of these share a bucket.
    """
    rng = random.Random(seed)
    sources = [text for text in comparables([text[:MAX_CHARS] for text in texts]) if len(text) >= 4 * config.ngram]
    if not sources or not config.recall_pairs:
        return {}
    chosen = [sources[i % len(sources)] for i in range(config.recall_pairs)]
    copies = [_edited(text, rng.uniform(0.6, 1.0), config, rng, sources) for text in chosen]
    true = np.array([_similarity(a, b, config) for a, b in zip(chosen, copies, strict=True)])
    keys_a, sets_a = _sketched(chosen, config)
    keys_b, sets_b = _sketched(copies, config)
    meet = (keys_a == keys_b).any(axis=1) & np.array(
        [bool(len(a) and len(b)) for a, b in zip(sets_a, sets_b, strict=True)]
    )
    measured = np.array([jaccard(a, b) for a, b in zip(sets_a, sets_b, strict=True)])
    removed = meet & (measured >= config.min_jaccard)
    others = (keys_a[:-1] == keys_a[1:]).any(axis=1) & np.array([a != b for a, b in itertools.pairwise(chosen)])
    return {
        "pairs": len(chosen),
        "strata": [row for low, high in itertools.pairwise(STRATA) if (row := _stratum(low, high, true, meet, config))],
        "removed": int(removed.sum()),
        "precision": float((true[removed] >= config.min_jaccard).mean()) if removed.any() else None,
        "unrelated": len(others),
        "unrelated_candidates": int(others.sum()),
    }


def _stratum(low: float, high: float, true: np.ndarray, meet: np.ndarray, config: DedupConfig) -> dict[str, Any] | None:
    inside = (true >= low) & ((true < high) | ((high == 1.0) & (true == 1.0)))
    if not inside.any():
        return None
    return {
        "from": low,
        "to": high,
        "pairs": int(inside.sum()),
        "recall": round(float(meet[inside].mean()), 4),
        "theory": round(float(np.mean([config.candidate_probability(s) for s in true[inside].tolist()])), 4),
    }


def _edited(text: str, similarity: float, config: DedupConfig, rng: random.Random, sources: Sequence[str]) -> str:
    """A copy with characters (or words) replaced, inserted or deleted here and there, of about this similarity."""
    items = text.split(" ") if config.shingle == "word" else list(text)
    lost = (1 - similarity) / (1 + similarity)  # share of shingles that an edited copy lacks
    edits = round(len(items) * (1 - (1 - lost) ** (1 / config.ngram)))
    for position in sorted(rng.sample(range(len(items)), min(edits, len(items))), reverse=True):
        other = rng.choice(sources)
        item = rng.choice(other.split(" ")) if config.shingle == "word" else rng.choice(other)
        kind = rng.randrange(3)
        items[position : position + (kind != 1)] = [] if kind == 2 else [item]
    return comparable(("" if config.shingle == "char" else " ").join(items))


def _similarity(left: str, right: str, config: DedupConfig) -> float:
    a, b = _strings(left, config), _strings(right, config)
    return len(a & b) / max(len(a | b), 1)


def _strings(text: str, config: DedupConfig) -> set[tuple[str, ...] | str]:
    items = text.split() if config.shingle == "word" else text
    found = range(len(items) - config.ngram + 1)
    return {
        tuple(items[i : i + config.ngram]) if config.shingle == "word" else text[i : i + config.ngram] for i in found
    }


def _sketched(texts: Sequence[str], config: DedupConfig) -> tuple[np.ndarray, list[np.ndarray]]:
    hashes, offsets = flat_shingles(texts, config.ngram, config.shingle)
    keys = band_keys(hashes, offsets, (config.bands, config.rows), config.seed)
    return keys, shingle_sets(hashes, offsets)
