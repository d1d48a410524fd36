"""How good and how honest a classifier is: plain numpy, each definition in its docstring."""

from dataclasses import dataclass

import numpy as np

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Held-out texts by how sure the classifier was. An honest one is right as often as it says."""

    counts: tuple[int, ...]  # of each tenth of the probability scale
    confidence: tuple[float, ...]  # mean probability said; 0 where a bin is empty
    accuracy: tuple[float, ...]  # share that came true
    error: float  # expected calibration error: mean |accuracy - confidence|, by count (Guo et al. 2017)
    brier: float  # mean squared distance of the probabilities from what was so, over all labels but the lowest

    @property
    def total(self) -> int:
        return sum(self.counts)


def reliability(probability: np.ndarray, happened: np.ndarray) -> Reliability:
    """Of one event: how likely it was said to be, and whether it happened. The last bin holds 1.0."""
    place = np.minimum((probability * BINS).astype(int), BINS - 1)
    counts = np.bincount(place, minlength=BINS)
    said = np.bincount(place, probability, BINS) / np.maximum(counts, 1)
    came = np.bincount(place, happened.astype(float), BINS) / np.maximum(counts, 1)
    return Reliability(
        counts=tuple(map(int, counts)),
        confidence=tuple(map(float, said)),
        accuracy=tuple(map(float, came)),
        error=float((counts * np.abs(came - said)).sum() / max(len(probability), 1)),
        brier=float(np.mean((probability - happened) ** 2)) if len(probability) else 0.0,
    )


def confusion(true: np.ndarray, said: np.ndarray, count: int) -> np.ndarray:
    """count x count: how often label i (row) was called label j (column)."""
    return np.bincount(true * count + said, minlength=count * count).reshape(count, count)


def accuracy(table: np.ndarray) -> float:
    """The share that got its own label."""
    return float(np.trace(table) / max(table.sum(), 1))


def f1(table: np.ndarray) -> list[float]:
    """For each label 2 x hits / (2 x hits + false alarms + misses); 0 for one that neither stands nor is said."""
    hits, said, stood = np.diag(table), table.sum(axis=0), table.sum(axis=1)
    return [float(2 * h / (p + s)) if p + s else 0.0 for h, p, s in zip(hits, said, stood, strict=True)]


def auc(score: np.ndarray, positive: np.ndarray) -> float | None:
    """The probability that a positive one scores higher than a negative one; ties count half (Mann-Whitney U).

    None without one of each.
    """
    num_positive = int(positive.sum())
    num_negative = len(positive) - num_positive
    if not num_positive or not num_negative:
        return None
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank = last - (counts - 1) / 2  # of equal scores, from 1
    rank_sum = mean_rank[place][positive].sum()
    return float((rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


def quadratic_kappa(table: np.ndarray) -> float | None:
    """Cohen's kappa with weights (i - j)^2: 1 is agreement, 0 what chance gives. None when both never vary."""
    count = len(table)
    weights = (np.arange(count)[:, None] - np.arange(count)[None, :]) ** 2
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / max(table.sum(), 1)
    expected = float((weights * by_chance).sum())
    return None if not expected else float(1 - (weights * table).sum() / expected)
