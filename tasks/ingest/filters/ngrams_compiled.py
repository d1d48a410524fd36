"""Counts of repeated n-grams by a compiled loop: the numbers of `ngrams.ladder`, three times as fast.

Loading it costs about as much as the numpy version takes for 50 MB of text: see `ngrams.count`.
"""

import numpy as np

from tasks.ingest.compiled import compiled

_MIX = np.uint64(0x9E3779B97F4A7C15)


@compiled
def ladder(codes: np.ndarray, lengths: np.ndarray, longest: int) -> np.ndarray:
    """As `ngrams.ladder`. Memory: at most 80 bytes for each character of the longest text."""
    found = np.zeros((max(longest - 1, 0), len(lengths), 3), np.int64)
    most = lengths.max() if len(lengths) else 0
    table = np.empty(2 * _slots(most), np.int64)
    names, candidates = np.empty(most + 1, np.int32), np.empty(most, np.int32)
    numbers, counts = np.empty(most, np.int32), np.empty(most, np.int32)
    begin = 0
    for text in range(len(lengths)):
        length = lengths[text]
        letters = codes[begin : begin + length]
        begin += length
        left = max(length - 1, 0)
        for place in range(length):
            candidates[place] = place
            names[place] = np.int32(letters[place])
        for n in range(2, longest + 1):
            if not left:
                break
            distinct = _number(letters, n, names, candidates[:left], numbers, counts, table)
            for number in range(distinct):
                count = counts[number]
                found[n - 2, text, 0] = max(found[n - 2, text, 0], count * (count > 1))
                found[n - 2, text, 1] += count > 1
                found[n - 2, text, 2] += count - 1
            left = _repeated(names[: length + 1], candidates, left, numbers, counts)
    return found


@compiled
def _slots(entries: int) -> int:
    """The size of a hash table for so many entries."""
    slots = 4
    while slots < entries + (entries >> 1):
        slots *= 2
    return slots


@compiled
def _number(letters, n, names, candidates, numbers, counts, table):  # type: ignore[no-untyped-def]
    """Number the n-grams at the candidates from 0 on, count each, and return how many there are.

    The name of its first n-1 letters and its last letter name an n-gram: the key in a table of (key, number).
    """
    slots = _slots(len(candidates))
    bits = np.uint64(0)
    while (1 << bits) < slots:
        bits += np.uint64(1)
    for slot in range(slots):
        table[2 * slot] = -1
    distinct = 0
    for index in range(len(candidates)):
        place = candidates[index]
        key = (np.int64(names[place]) << 21) | np.int64(letters[place + n - 1])
        slot = np.int64((np.uint64(key) * _MIX) >> (np.uint64(64) - bits))
        while table[2 * slot] != key:
            if table[2 * slot] == -1:
                table[2 * slot], table[2 * slot + 1] = key, distinct
                counts[distinct] = 0
                distinct += 1
                break
            slot = (slot + 1) & (slots - 1)
        number = table[2 * slot + 1]
        numbers[index] = number
        counts[number] += 1
    return distinct


@compiled
def _repeated(names, candidates, num_candidates, numbers, counts):  # type: ignore[no-untyped-def]
    """Name the repeated n-grams, and keep the places where the next length can repeat. No branches: none is likely."""
    names[:] = 0
    for index in range(num_candidates):
        number = numbers[index]
        names[candidates[index]] = (number + 1) * (counts[number] > 1)
    left = 0
    for index in range(num_candidates):
        place = candidates[index]
        candidates[left] = place
        left += (names[place] != 0) & (names[place + 1] != 0)
    return left
