"""Drops texts with lost or wrongly read characters that no repair could bring back."""

import re

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.characters import flag_table, flagged
from tasks.ingest.filters.rule import Limit, share
from tasks.ingest.texts import Texts

_LOST, _FOREIGN = 1, 2
_NEEDS = flag_table(
    {_LOST: [0xFFFD, *range(0xE000, 0xF900)], _FOREIGN: [*map(ord, "縺繧繝縲､"), *range(0xC2, 0xF5), *map(ord, "‚ƒ¤")]}
)
_LOST_CHARACTER = re.compile("[\ufffd\ue000-\uf8ff]")
# What wrongly read bytes look like, lost ones included. Signs that also stand alone count only in rows.
_MOJIBAKE = re.compile(
    "[縺繧繝縲][^\x00-\x7f]"  # UTF-8 as Shift_JIS
    "|[ÃÂ][\x80-\xbf‚-›Œ-ž€]|ã[‚ƒ€\x81-\x83]|â€|ï¼"  # UTF-8 as windows-1252
    "|[‚ƒ][@-~\x80-\xff](?=[‚ƒ])"  # Shift_JIS as windows-1252
    "|[¤¥][¡-ö](?=[¤¥])|[､･][ｱ-ﾟ](?=[､･])"  # EUC-JP as Latin-1 and as Shift_JIS
)


class GarbledRules(StageConfig):
    """Ours. A page that shows one is a page about encodings; a broken one is full of them."""

    max_lost_fraction: float = Field(
        default=0.005, ge=0, le=1, description="Largest share of U+FFFD and private-use characters."
    )
    max_mojibake_fraction: float = Field(
        default=0.02, ge=0, le=1, description="Largest share of characters that stand for wrongly read bytes."
    )


def measure(texts: Texts, rules: GarbledRules) -> dict[str, np.ndarray]:
    """Shares of lost characters and of mojibake, over all characters."""
    lost, mojibake = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.int64)
    flags = flagged(texts.strings, _NEEDS)
    for index in np.flatnonzero(flags).tolist():
        text = texts.strings[index]
        lost[index] = len(_LOST_CHARACTER.findall(text)) if flags[index] & _LOST else 0
        mojibake[index] = sum(map(len, _MOJIBAKE.findall(text))) if flags[index] & _FOREIGN else 0
    return {"lost_fraction": share(lost, texts.lengths), "mojibake_fraction": share(mojibake, texts.lengths)}


def limits(rules: GarbledRules) -> tuple[Limit, ...]:
    return (
        Limit("lost_characters", "lost_fraction", "above", rules.max_lost_fraction),
        Limit("mojibake", "mojibake_fraction", "above", rules.max_mojibake_fraction),
    )
