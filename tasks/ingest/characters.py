"""Characters that no text needs, one width for katakana, and a fast look at which texts of a batch hold what."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

# Controls, soft hyphens, zero-width and direction marks, byte order marks, non-characters. \x85 is a line break.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff\ufffe\uffff]"
)
HALF_KATAKANA = re.compile("[\uff61-\uff9f]")
_HALF_KATAKANA_RUN = re.compile("[\uff61-\uff9f]+")


def wide_katakana(text: str) -> str:
    """Half-width katakana and their punctuation as full-width; voicing marks join their kana. The rest stays."""
    return _HALF_KATAKANA_RUN.sub(lambda found: unicodedata.normalize("NFKC", found[0]), text)


def flag_table(bits: Mapping[int, Iterable[int]]) -> np.ndarray:
    """A table code point -> flags, for `flagged`. `bits` maps a flag (1, 2, 4 … 128) to its code points."""
    table = np.zeros(0x110000, np.uint8)
    for bit, codes in bits.items():
        table[np.fromiter(codes, np.int64)] |= bit
    return table


def joined_codes(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The code points of the texts, a line break after each, and where each text starts (one more: the end)."""
    lengths = np.fromiter((len(text) + 1 for text in texts), np.int64, len(texts))
    joined = "\n".join((*texts, ""))
    return (
        np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32),
        np.concatenate(([0], np.cumsum(lengths))),
    )


def flagged(texts: Sequence[str], table: np.ndarray) -> np.ndarray:
    """For each text the flags of all its characters together."""
    if not texts:
        return np.zeros(0, np.uint8)
    codes, starts = joined_codes(texts)
    return np.bitwise_or.reduceat(table[codes], starts[:-1])
