"""The held-out part: who is chosen, and which training documents come too near. Every pair is measured."""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from tasks.ingest.comparable import comparables
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.shingles import SKETCH_BATCH, flat_shingles, shingle_sets, text_digest

_CHAR_BYTES = 80  # of a held-out character while its block is built: two hashes, two owners, and sorting them


@dataclass(frozen=True)
class Nearness:
    """Why a training document goes: the reason, a held-out document, and what share the two have in common."""

    reason: str
    heldout_id: str
    share: float


def draws(digests: Iterable[bytes], seed: int) -> np.ndarray:
    """A number in [0, 1) for each text, that depends on the text alone."""
    salt = seed.to_bytes(8, "big")
    return np.array(
        [int.from_bytes(text_digest((digest + salt).hex())[:8], "big") / 2**64 for digest in digests], float
    )


@dataclass(frozen=True)
class Shares:
    """The shingles of one length of some held-out documents, sorted; `near` finds those that others share."""

    hashes: np.ndarray
    owners: np.ndarray
    sizes: np.ndarray  # distinct shingles of each held-out document

    @classmethod
    def of(cls, texts: Sequence[str], ngram: int) -> "Shares":
        """The shingles of these comparable texts."""
        sets = shingle_sets(*flat_shingles(texts, ngram))
        sizes = np.array([len(own) for own in sets], np.int64)
        flat = np.concatenate([np.zeros(0, np.uint64), *sets])
        order = np.argsort(flat, kind="stable")
        return cls(flat[order], np.repeat(np.arange(len(sets)), sizes)[order], sizes)

    def near(self, hashes: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Text, held-out document and how many distinct shingles they share, for all pairs that share one.

        Args:
            hashes, offsets: the shingles of texts, as `flat_shingles` gives them.
        """
        place = np.flatnonzero(self._maybe(hashes))
        text = np.searchsorted(offsets.astype(np.int64), place, "right") - 1
        own = hashes[place]
        order = np.lexsort((own, text))
        text, own = text[order], own[order]
        fresh = np.ones(len(own), bool)
        fresh[1:] = (own[1:] != own[:-1]) | (text[1:] != text[:-1])
        text, own = text[fresh], own[fresh]
        low, high = np.searchsorted(self.hashes, own, "left"), np.searchsorted(self.hashes, own, "right")
        counts = high - low
        before = np.cumsum(counts) - counts
        positions = np.repeat(low - before, counts) + np.arange(counts.sum())
        pairs = np.repeat(text, counts) * len(self.sizes) + self.owners[positions]
        pairs, shared = np.unique(pairs, return_counts=True)
        return pairs // max(len(self.sizes), 1), pairs % max(len(self.sizes), 1), shared

    def _maybe(self, hashes: np.ndarray) -> np.ndarray:
        """False where a hash is surely none of these: a look into a bitmap instead of a search."""
        return self._bitmap[(hashes & np.uint64(len(self._bitmap) - 1)).astype(np.int64)]

    @cached_property
    def _bitmap(self) -> np.ndarray:
        bits = min(max(10, (len(self.hashes) * 16).bit_length()), 26)
        table = np.zeros(1 << bits, bool)
        table[(self.hashes & np.uint64(len(table) - 1)).astype(np.int64)] = True
        return table


@dataclass(frozen=True)
class Block:
    """Some held-out documents: their ids, the shingles that measure likeness, and the passages."""

    ids: list[str]
    alike: Shares
    passages: Shares

    def save(self, folder: Path) -> None:
        """Write the block to files."""
        folder.mkdir(parents=True)
        (folder / "ids.json").write_text(json.dumps(self.ids))
        for name, shares in (("alike", self.alike), ("passages", self.passages)):
            np.savez(folder / f"{name}.npz", hashes=shares.hashes, owners=shares.owners, sizes=shares.sizes)

    @classmethod
    def load(cls, folder: Path) -> "Block":
        """The block that was saved there."""
        shares: list[Shares] = []
        for name in ("alike", "passages"):
            with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
                shares.append(Shares(arrays["hashes"], arrays["owners"], arrays["sizes"]))
        return cls(json.loads((folder / "ids.json").read_text()), *shares)


def save_blocks(heldout: Iterable[tuple[str, str]], folder: Path, config: DedupConfig) -> list[Path]:
    """Held-out documents (id, text) as blocks that fit in an eighth of the memory; the folder of each."""
    shutil.rmtree(folder, ignore_errors=True)  # of a run that died
    most = config.memory_bytes // 8 // _CHAR_BYTES
    folders: list[Path] = []
    ids, texts, chars = list[str](), list[str](), 0

    def save() -> None:
        nonlocal ids, texts, chars
        plain = comparables(texts)
        block = Block(ids, Shares.of(plain, config.ngram), Shares.of(plain, config.overlap_ngram))
        folders.append(folder / f"{len(folders):05d}")
        block.save(folders[-1])
        ids, texts, chars = [], [], 0

    for name, text in heldout:
        if texts and chars + len(text) > most:
            save()
        ids.append(name)
        texts.append(text)
        chars += len(text)
    if texts:
        save()
    return folders


def too_near(texts: list[str], folders: Sequence[Path], config: DedupConfig) -> Iterator[tuple[int, Nearness]]:
    """Positions of training texts that are alike a held-out document, or hold too much of one. One block in memory."""
    alike: dict[int, tuple[float, str]] = {}
    holds: dict[int, tuple[float, str]] = {}
    plain = [
        text for low in range(0, len(texts), SKETCH_BATCH) for text in comparables(texts[low : low + SKETCH_BATCH])
    ]
    for folder in folders:
        block = Block.load(folder)
        for start in range(0, len(plain), SKETCH_BATCH):
            batch = plain[start : start + SKETCH_BATCH]
            for i, owner, share in _alike(batch, block, config):
                _better(alike, start + i, share, block.ids[owner])
            for i, owner, share in _holds(batch, block, config):
                _better(holds, start + i, share, block.ids[owner])
    for i in sorted(alike.keys() | holds.keys()):
        reason = "heldout_duplicate" if i in alike else "heldout_overlap"
        share, name = alike.get(i) or holds[i]
        yield i, Nearness(reason, name, round(share, 4))


def _alike(texts: list[str], block: Block, config: DedupConfig) -> Iterator[tuple[int, int, float]]:
    hashes, offsets = flat_shingles(texts, config.ngram)
    text, owner, shared = block.alike.near(hashes, offsets)
    ends = offsets.astype(np.int64)
    some = shared >= config.min_jaccard * block.alike.sizes[owner] * (1 - 1e-12)  # a similarity is never above this
    for i, other, both in zip(text[some].tolist(), owner[some].tolist(), shared[some].tolist(), strict=True):
        own = len(np.unique(hashes[ends[i] : ends[i + 1]]))
        similarity = both / (own + int(block.alike.sizes[other]) - both)
        if similarity >= config.min_jaccard:
            yield i, other, similarity


def _holds(texts: list[str], block: Block, config: DedupConfig) -> Iterator[tuple[int, int, float]]:
    text, owner, shared = block.passages.near(*flat_shingles(texts, config.overlap_ngram))
    share = shared / block.passages.sizes[owner]
    some = share > config.max_heldout_overlap
    yield from zip(text[some].tolist(), owner[some].tolist(), share[some].tolist(), strict=True)


def _better(best: dict[int, tuple[float, str]], i: int, share: float, name: str) -> None:
    """Remember the greater share; of equal ones, that of the smaller id."""
    known = best.get(i)
    if known is None or (-share, name) < (-known[0], known[1]):
        best[i] = share, name
