"""What deduplication came to: figures by source, the largest component, and the guard against losing a source."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import numpy as np
import pyarrow as pa

from tasks.errors import DataFault
from tasks.ingest.dedup.buckets import Crowd
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.dedup.corpus import REASONS, Corpus
from tasks.ingest.dedup.decide import Decision
from tasks.ingest.dedup.index import read_index, shard_of, texts_of
from tasks.ingest.shingles import SKETCH

SMALL_SOURCE = 20  # a share of fewer documents says nothing
SHOWN_PAIRS = 3
TEMPLATE_CHARS = 200
_COMPARED_CHARS = 3000  # of the texts whose common passage is looked for


@dataclass
class Losses:
    """Documents of each source, and how many go, with a few pairs to look at."""

    documents: Counter[str] = field(default_factory=Counter)
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    pairs: dict[str, list[str]] = field(default_factory=dict)

    def add(self, verdicts: pa.Table, index: pa.Table) -> None:
        """Count one shard."""
        sources = index["source"].to_pylist()
        self.documents.update(sources)
        for verdict in verdicts.to_pylist():
            source = sources[verdict["row"]]
            self.dropped.setdefault(source, Counter())[verdict["reason"]] += 1
            shown = self.pairs.setdefault(source, [])
            if len(shown) < SHOWN_PAIRS:
                shown.append(f"{verdict['id']} ~ {verdict['kept_id']} ({verdict['similarity']})")

    def share(self, source: str) -> float:
        """The share of its documents that a source loses."""
        return self.dropped.get(source, Counter()).total() / max(self.documents[source], 1)

    def by_source(self) -> dict[str, dict[str, float]]:
        """Figures for the report."""
        return {
            source: {
                "documents": count,
                **{reason: self.dropped.get(source, Counter())[reason] for reason in REASONS},
                "loss": round(self.share(source), 4),
            }
            for source, count in sorted(self.documents.items())
        }


def guard(losses: Losses, largest: dict[str, Any], config: DedupConfig) -> None:
    """Stop when a source of SMALL_SOURCE documents or more loses more than its share.

    Raises:
        DataFault: with pairs of the source and the largest component.
    """
    for source, total in sorted(losses.documents.items()):
        limit = config.loss_limit(source)
        if total < SMALL_SOURCE or losses.share(source) <= limit:
            continue
        shown = ""
        if largest:
            shown = (
                f" The largest component is of {largest['documents']:,} documents ({largest['share']:.0%} of all), "
                f"which share, for example: {largest['template']!r}."
            )
        raise DataFault(
            f"source {source!r} would lose {losses.dropped[source].total():,} of {total:,} documents "
            f"({losses.share(source):.0%}) as duplicates, at most {limit:.0%} is allowed: so many are more often "
            f"a fault (pages without their text, one template) than real. "
            f"Pairs: {', '.join(losses.pairs[source])}.{shown} Look at them, then leave the source out, raise "
            f"min_jaccard ({config.min_jaccard}), or raise max_source_loss (or source_loss for {source!r}) if they are "
            "duplicates."
        )


def largest_component(corpus: Corpus, crowd: Crowd) -> dict[str, Any]:
    """Size of the largest component and a passage that two of its documents share; empty when there is none."""
    if not len(crowd.docs):
        return {}
    sizes = np.bincount(crowd.labels)
    members = crowd.docs[crowd.labels == int(np.argmax(sizes))]
    ends = [_text(corpus, int(doc)) for doc in (members[0], members[-1])]
    return {
        "documents": len(members),
        "share": round(len(members) / max(corpus.total, 1), 4),
        "template": common_passage(*ends)[:TEMPLATE_CHARS],
    }


def common_passage(left: str, right: str) -> str:
    """The longest passage that the beginnings of two texts share."""
    a, b = left[:_COMPARED_CHARS], right[:_COMPARED_CHARS]
    found = SequenceMatcher(None, a, b, autojunk=False).find_longest_match()
    return a[found.a : found.a + found.size]


def component_sizes(crowd: Crowd) -> dict[str, int]:
    """How many components there are of each size, by powers of two."""
    sizes = np.bincount(crowd.labels) if len(crowd.labels) else np.zeros(0, np.int64)
    powers = Counter((int(size).bit_length() - 1) for size in sizes.tolist())
    return {f"{1 << power}-{(2 << power) - 1}": count for power, count in sorted(powers.items())}


def figures(decision: Decision, losses: Losses, largest: dict[str, Any]) -> dict[str, Any]:
    """dedup.json without the recall."""
    corpus, tally = decision.corpus, decision.tally
    new = losses.documents.total()
    return {
        "sketch": {"version": SKETCH, **corpus.config.identity()},
        "meets": {
            f"{s:.2f}": round(corpus.config.candidate_probability(s), 4) for s in (0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
        },
        "documents": new,
        "old_documents": corpus.total - new,
        "sources": losses.by_source(),
        "sharing_a_bucket": len(decision.crowd.docs),
        "components": component_sizes(decision.crowd),
        "largest_component": largest,
        "comparisons": tally.comparisons,
        "cut_short": tally.cut_short,
        "similarities": tally.similarities.tolist(),
    }


def _text(corpus: Corpus, doc: int) -> str:
    docs = np.array([doc], np.int64)
    shard = corpus.shards[int(shard_of(docs)[0])]
    table, all_docs = read_index(shard, ["id"])
    ids: Sequence[str] = table["id"].take(pa.array(np.searchsorted(all_docs, docs))).to_pylist()
    return next(texts[0] for _, texts in texts_of(shard, docs, list(ids)) if texts)
