"""Histograms of scores: fine enough to cut by, mergeable, and comparable between dumps.

Bins have equal widths in log-odds of the score's share of the highest mark, because fastText's probabilities crowd at
both ends: in bins of equal score, the best tenth of a corpus could be one bin.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import chdtri

BIN_WIDTH = 0.02  # in log-odds; half a point of probability where both labels are as likely
LIMIT = 24.0  # log-odds beyond are one bin: fastText's float32 does not tell them apart
NUM_BINS = round(2 * LIMIT / BIN_WIDTH)
PSI_BINS = 10  # as the index is defined: tenths of the reference
CHANCE = 0.001
PSI_FLOOR = 1e-4  # least share of an empty tenth, so that the index stays finite; of few documents half a document

Histograms = Mapping[str, Mapping[str, int]]  # group -> bin -> documents, as JSON keeps it


def bins(scores: np.ndarray, highest: float) -> np.ndarray:
    """The bin of each score; a higher score never has a lower bin."""
    share = np.clip(scores / highest, 0.0, 1.0)
    with np.errstate(divide="ignore"):
        odds = np.log(share) - np.log1p(-share)
    place = np.floor((np.clip(odds, -LIMIT, LIMIT) + LIMIT) / BIN_WIDTH)
    return np.minimum(place, NUM_BINS - 1).astype(np.int64)


def lower_edge(place: int, highest: float) -> float:
    """The least score of a bin."""
    return highest / (1 + float(np.exp(LIMIT - place * BIN_WIDTH))) if place > 0 else 0.0


def count_bins(found: dict[str, np.ndarray], scores: np.ndarray, groups: Sequence[str], highest: float) -> None:
    """Add documents to the histograms of their groups; a group costs 20 kB."""
    names, place = np.unique(np.asarray(groups, object), return_inverse=True)
    where = bins(scores, highest)
    for number, name in enumerate(names):
        total = found.setdefault(str(name), np.zeros(NUM_BINS, np.int64))
        total += np.bincount(where[place == number], minlength=NUM_BINS)


def merged(parts: Iterable[Histograms]) -> dict[str, np.ndarray]:
    """The sum of histograms by group, groups sorted."""
    found: dict[str, np.ndarray] = {}
    for part in parts:
        for group, counts in part.items():
            total = found.setdefault(group, np.zeros(NUM_BINS, np.int64))
            np.add.at(total, np.fromiter(map(int, counts), np.int64), np.fromiter(counts.values(), np.int64))
    return dict(sorted(found.items()))


def as_json(histograms: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Filled bins only, groups sorted."""
    return {
        group: {str(place): int(counts[place]) for place in np.flatnonzero(counts)}
        for group, counts in sorted(histograms.items())
    }


@dataclass(frozen=True)
class Threshold:
    """Where a group is cut: everything from `bin` upwards is kept."""

    bin: int
    score: float  # the bin's least score
    total: int
    kept: int
    in_bin: int  # documents of the lowest kept bin: the cut misses what was asked by less than that
    end: int = NUM_BINS  # bin from which upwards nothing is kept: a band ends below the best

    @property
    def share(self) -> float:
        return self.kept / max(self.total, 1)


def band(counts: np.ndarray, fraction: float, skipped: float, highest: float) -> Threshold:
    """The best `fraction` without the best `skipped`: what `top_fraction` keeps of the first and not of the second."""
    found, best = top_fraction(counts, fraction, highest), top_fraction(counts, skipped, highest)
    return replace(found, end=best.bin, kept=found.kept - best.kept)


def top_fraction(counts: np.ndarray, fraction: float, highest: float) -> Threshold:
    """The lowest bin to keep so that the kept share is as near to `fraction` as whole bins allow.

    Of two equally near the smaller share; never nothing. Equal scores are in one bin, so they are kept or dropped
    together, whatever their order.
    """
    total = int(counts.sum())
    filled = np.flatnonzero(counts)
    kept = np.cumsum(counts[::-1])[::-1][filled]  # by the lowest kept bin
    nearest = np.abs(kept - fraction * total)
    best = int(np.flatnonzero(nearest == nearest.min())[-1])
    place = int(filled[best])
    return Threshold(place, lower_edge(place, highest), total, int(kept[best]), int(counts[place]))


@dataclass(frozen=True)
class Drift:
    """How far scores have moved from a reference."""

    psi: float  # population stability index: sum of (new - old) x ln(new / old) over tenths of the reference
    ks: float  # Kolmogorov-Smirnov: greatest distance of the cumulative shares
    total: int
    chance: float  # index that one in a thousand dumps of this size exceeds although nothing has moved

    def exceeds(self, limit: float) -> bool:
        """Whether the index is above a limit, and not by the chance of few documents."""
        return self.psi > max(limit, self.chance)


def drift(new: np.ndarray, reference: np.ndarray) -> Drift:
    """The distance of two histograms.

    Up to 0.1 the index means no change worth a name, from 0.25 a great one (Siddiqi, Credit Risk Scorecards, 2006). Of
    scores that did not move it is distributed as (1/new + 1/old) x chi-squared (Yurdakul, 2018).
    """
    old_share, new_share = reference / reference.sum(), new / new.sum()
    old_cumulative, new_cumulative = np.cumsum(old_share), np.cumsum(new_share)
    edges = np.searchsorted(old_cumulative, np.arange(1, PSI_BINS) / PSI_BINS - 1e-12)  # last bin of each tenth
    edges = np.unique(np.append(edges, NUM_BINS - 1))
    old_parts = np.maximum(np.diff(old_cumulative[edges], prepend=0.0), max(PSI_FLOOR, 0.5 / reference.sum()))
    new_parts = np.maximum(np.diff(new_cumulative[edges], prepend=0.0), max(PSI_FLOOR, 0.5 / new.sum()))
    return Drift(
        psi=float(((new_parts - old_parts) * np.log(new_parts / old_parts)).sum()),
        ks=float(np.abs(new_cumulative - old_cumulative).max()),
        total=int(new.sum()),
        chance=float((1 / new.sum() + 1 / reference.sum()) * chdtri(max(len(edges) - 1, 1), CHANCE)),
    )
