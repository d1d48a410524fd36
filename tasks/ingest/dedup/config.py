"""Knobs of the dedup stage, and the published sets of them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.shard_workers import Runner


class LineConfig(StageConfig):
    """Lines that many documents share stay in the first of them and are cut out of the others."""

    min_chars: int = Field(default=15, ge=1, description="A shorter line is never cut.")
    min_documents: int = Field(
        default=3, ge=2, description="A line is boilerplate from so many documents on (kept ones, each counted once)."
    )


class DedupConfig(StageConfig):
    """Exact and near duplicates out; a held-out part that no training document comes near."""

    docs: str = input_field("Clean documents.", default="")
    against: tuple[str, ...] = input_field(
        "Finished dedup artifacts, say of older crawls: a document that one of them kept is dropped here.", default=()
    )

    shingle: Literal["char", "word"] = Field(
        default="char", description="What an n-gram is made of; words are what stands between spaces."
    )
    ngram: int = Field(
        default=5, ge=1, le=32, description="Characters (or words) of a shingle (Swallow: 5). Shorter texts have none."
    )
    bands: int = Field(default=40, ge=1, le=1000, description="Buckets a document is put into (Swallow: 40).")
    rows: int = Field(default=20, ge=1, le=100, description="Hashes that name a bucket (Swallow: 20).")
    min_jaccard: float = Field(
        default=0.8, gt=0, le=1, description="Pairs that share a bucket are compared exactly; from here on, duplicates."
    )
    keep: Literal["longest", "newest"] = Field(
        default="longest",
        description="Who stays of duplicates: the longest, or the newest by crawl_time (unknown = oldest) and then "
        "the longest; ties by id.",
    )
    max_comparisons: int = Field(
        default=500,
        ge=1,
        description="Kept documents that one is compared with at most, best first. One with more candidates stays and "
        "is counted (dedup.json: cut_short).",
    )
    lines: LineConfig | None = Field(default=None, description="Cut lines that many documents share; none = leave.")
    heldout_fraction: float = Field(default=0.02, ge=0, lt=1, description="Share of documents kept for evaluation.")
    overlap_ngram: int = Field(
        default=20, ge=1, le=200, description="Characters of the passages by which held-out text is looked for."
    )
    max_heldout_overlap: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="A training document that holds a larger share of a held-out one's passages is dropped.",
    )
    max_source_loss: float = Field(
        default=0.5, gt=0, le=1, description="The run stops when a source loses a larger share of its documents."
    )
    source_loss: dict[str, float] = Field(
        default_factory=dict, description="Another share for some sources, by name: {'news': 0.8}."
    )
    recall_pairs: int = Field(
        default=400, ge=0, description="Pairs planted in the corpus's own text to measure recall; 0 = do not measure."
    )
    seed: int = Field(default=0, ge=0, description="Of the hashes and of the choice of held-out documents.")
    memory_bytes: int = operational_field(
        "What sorting and comparing may hold at a time, beside 300 MB of the program; the rest waits in scratch files.",
        default=2 << 30,
        ge=8 << 20,
    )
    workers: int = operational_field(
        "Shards sketched, compared or written side by side; 0 = one a core.", default=0, ge=0
    )
    runner: Runner = operational_field(
        "Where shards are sketched: processes of this machine, or tasks of a Ray cluster. The rest stays here.",
        default="local",
    )
    shared_disk: bool = operational_field(
        "With a Ray cluster and a store that is a path: that path is the same disk on every node.", default=False
    )

    @model_validator(mode="after")
    def _fits_the_sketch(self) -> Self:
        if self.bands * self.rows > 4096:
            raise ValueError(
                f"bands={self.bands} x rows={self.rows} = {self.bands * self.rows} hashes a document, at most 4,096: "
                "more cost memory and find nothing new. Lower one of them."
            )
        wrong = {name: share for name, share in self.source_loss.items() if not 0 < share <= 1}
        if wrong:
            raise ValueError(
                f"source_loss={wrong}: a share of documents is above 0 and at most 1, because it is compared with what "
                "a source loses. Correct it."
            )
        return self

    def loss_limit(self, source: str) -> float:
        """The share of its documents that a source may lose."""
        return self.source_loss.get(source, self.max_source_loss)

    def candidate_probability(self, similarity: float) -> float:
        """Chance that two texts of this similarity share a bucket: 1 - (1 - s^rows)^bands (Leskovec et al., 3.4)."""
        return 1 - (1 - similarity**self.rows) ** self.bands

    def identity(self) -> dict[str, int | str]:
        """What two sketches must have in common to be compared."""
        return {name: getattr(self, name) for name in ("shingle", "ngram", "bands", "rows", "seed")}


PRESETS: dict[str, DedupConfig] = {
    # Swallow Corpus v2 (doubri -n 5 -b 20 -r 40): half of the pairs of J = 0.82 meet, 99 % of 0.9; newest crawl first.
    "swallow": DedupConfig(shingle="char", ngram=5, bands=40, rows=20, min_jaccard=0.8, keep="newest"),
    # Titles, comments, dictionary entries, chat. One edited character spoils n of about L shingles, so at L = 40 it
    # costs 5-grams 0.24 of J and 3-grams 0.15; 30 x 5 meets half of the pairs of 0.47 and 99.99 % of 0.75.
    "cjk-short": DedupConfig(shingle="char", ngram=3, bands=30, rows=5, min_jaccard=0.7, keep="longest"),
    # FineWeb (Penedo et al. 2024; datatrove's default): 14 bands of 8 hashes of word 5-grams; half of the pairs of 0.69
    # meet, 77 % of 0.75. They drop every pair that meets; here it is measured first, at the 0.75 that they aim at.
    "fineweb": DedupConfig(shingle="word", ngram=5, bands=14, rows=8, min_jaccard=0.75, keep="longest"),
}
