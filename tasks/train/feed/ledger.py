"""The token ledger: which documents were seen how often, and what was learnt of each source."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.tokens import TextTokenizer
from tasks.train.feed.sources import Source
from tasks.train.feed.streams import FeedConfig, State, open_streams


def token_ledger(sources: Sequence[Source], tokenizer: TextTokenizer, cfg: FeedConfig, state: State) -> dict[str, Any]:
    """What was read up to a global position.

    For each source: documents `drawn` and the `tokens` of all that were taken up; of these, `inputs` that were in a row
    and `learned` that were a target with a weight; how many records were `seen` 0, 1, 2, … times. For chat also how
    many were truncated or skipped.
    """
    streams = open_streams(sources, tokenizer, cfg, range(cfg.streams))
    times = [np.zeros(source.records, np.int64) for source in sources]
    cut = {"truncated": 0, "skipped": 0}
    for stream, saved in zip(streams, state["streams"], strict=True):
        stream.set_state(saved)
        for source, counts, indices in zip(sources, times, stream.seen(), strict=True):
            for index in indices:
                counts[source.place(index)[1]] += 1
        for name, count in stream.cut.items():
            cut[name] += count
    states = state["streams"]
    sums = {name: np.sum([saved[name] for saved in states], axis=0).tolist() for name in ("inputs", "learned")}
    sums["tokens"] = np.sum([stream.tokens for stream in streams], axis=0).tolist()
    return {
        "sources": [
            {
                "name": source.name,
                "records": source.records,
                "drawn": int(counts.sum()),
                **{name: values[i] for name, values in sums.items()},
                "token_share": sums["tokens"][i] / max(1, sum(sums["tokens"])),
                "epochs": int(counts.sum()) / source.records,
                "seen": {str(n): int(count) for n, count in enumerate(np.bincount(counts)) if count},
            }
            for i, (source, counts) in enumerate(zip(sources, times, strict=True))
        ],
        **cut,
    }


def require_counted(ledger: dict[str, Any], *, tokens: int, learned: int) -> None:
    """What the streams say they gave must be what the trainer counted in the batches it got.

    Raises:
        AssertionError: a token was lost or given twice on the way.
    """
    for name, counted in (("inputs", tokens), ("learned", learned)):
        given = sum(source[name] for source in ledger["sources"])
        if given != counted:
            raise AssertionError(f"the feed gave {given:,} tokens ({name}), the trainer counted {counted:,}")
