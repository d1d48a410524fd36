"""What a teacher said of one training record: a few words with their shares after each of its tokens.

A record is made for one sequence of token ids, of which it carries a hash: words of another text, or of the same text
cut into other tokens, are refused and never learnt.
"""

import struct

import numpy as np
import xxhash

from tasks.errors import DataFault

MAGIC = b"NTW1"
HEADER = struct.Struct("<4sHIQ")  # magic, words after a token, tokens with a next one, hash of the ids

Taught = tuple[np.ndarray, np.ndarray]
"""words int32 [n, K] and shares float32 [n, K]: row i is about ids[i + 1], and its shares sum to one."""


def pack_taught(ids: np.ndarray, words: np.ndarray, shares: np.ndarray) -> bytes:
    """The record of a text of N + 1 ids; shares are kept as float16."""
    if len(ids) != len(words) + 1 or shares.shape != words.shape:
        raise AssertionError(f"{len(ids)} ids with words {words.shape} and shares {shares.shape}")
    header = HEADER.pack(MAGIC, words.shape[1], len(words), _hash(ids))
    return header + words.astype("<i4").tobytes() + shares.astype("<f2").tobytes()


def unpack_taught(record: bytes, ids: np.ndarray, what: str) -> Taught:
    """What was packed, for the same ids; shares sum to one again, whatever float16 and top words left out.

    Args:
        what: names the record in an error.

    Raises:
        DataFault: the record is broken, or it was made for other ids.
    """
    magic, count, tokens, digest = HEADER.unpack_from(record) if len(record) >= HEADER.size else (b"", 0, 0, 0)
    if magic != MAGIC or len(record) != HEADER.size + tokens * count * 6:
        raise DataFault(
            f"{what}: its teacher's record of {len(record):,} bytes is none of ours, or not whole. Make the teach "
            "artifact again."
        )
    if len(ids) != tokens + 1 or _hash(ids) != digest:
        raise DataFault(
            f"{what}: the teacher spoke about {tokens + 1:,} other tokens than the {len(ids):,} of the text here. "
            "Its words would be learnt in the wrong places. Make the teach artifact from this pack artifact, with its "
            "tokenizer."
        )
    words = np.frombuffer(record, "<i4", tokens * count, HEADER.size).reshape(tokens, count)
    shares = np.frombuffer(record, "<f2", tokens * count, HEADER.size + 4 * tokens * count)
    shares = shares.reshape(tokens, count).astype(np.float32)
    return words, shares / np.sum(shares, axis=1, keepdims=True)


def _hash(ids: np.ndarray) -> int:
    return xxhash.xxh64_intdigest(np.asarray(ids, "<i4").tobytes())
