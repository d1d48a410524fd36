"""Knobs of the classify stages: examples, classifier, scores, cut."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.generation.server import Serving
from tasks.shard_workers import Runner


class Side(StageConfig):
    """Documents of one artifact that all have the same label."""

    input: int = Field(ge=0, description="Which of `documents`, counted from 0.")
    sources: tuple[str, ...] = Field(default=(), description="Sources of that artifact, by name; empty takes all.")
    max_documents: int = Field(
        default=60_000, gt=0, description="Documents drawn at most (Swallow: 60,000 Wikipedia articles)."
    )


class ContrastConfig(StageConfig):
    """Examples by origin: documents worth learning from against ordinary ones."""

    documents: tuple[str, ...] = input_field("Documents of both sides.", min_length=1)
    positives: tuple[Side, ...] = Field(min_length=1, description="What is labelled 1, e.g. academic Wikipedia.")
    negatives: tuple[Side, ...] = Field(min_length=1, description="What is labelled 0, e.g. web pages.")
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1, description="Share of examples kept for evaluation.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Which documents are drawn.")

    @model_validator(mode="after")
    def _sides_differ(self) -> Self:
        for side in (*self.positives, *self.negatives):
            if side.input >= len(self.documents):
                raise ValueError(
                    f"input={side.input} of {len(self.documents)} documents: a side names one of them, counted from 0. "
                    "Correct the number, or add the artifact to documents."
                )
        for positive in self.positives:
            for negative in self.negatives:
                shared = set(positive.sources) & set(negative.sources)
                everything = not positive.sources or not negative.sources
                if positive.input == negative.input and (shared or everything):
                    raise ValueError(
                        f"input={positive.input}, sources {sorted(shared) or 'all'} stand on both sides: a document "
                        "has one label. Name the sources of each side, without overlap."
                    )
        return self


class AnnotateConfig(StageConfig):
    """Examples by a teacher's mark: 0 to 3 points for educational value."""

    documents: str = input_field("Documents to mark.")
    teacher: str = input_field("The chat model that marks.")
    language: Literal["en", "ja"] = Field(description="Language of the instructions.")
    sources: tuple[str, ...] = Field(default=(), description="Sources to draw from, by name; empty takes all.")
    max_documents: int = Field(gt=0, description="Documents drawn at most, one request each.")
    excerpt_chars: int = Field(default=1000, gt=0, description="Characters that the teacher reads, from the beginning.")
    justify: bool = Field(default=True, description="Ask for reasons before the mark; small teachers lose their way.")
    max_answer_tokens: int = Field(default=256, gt=0, description="Tokens of one answer, at most.")
    min_yield: float = Field(default=0.5, ge=0, le=1, description="Least share of answers that must hold a mark.")
    preview_requests: int = Field(default=64, gt=0, description="Answers after which the yield is looked at.")
    heldout_fraction: float = Field(default=0.1, gt=0, lt=1, description="Share of examples kept for evaluation.")
    seed: int = Field(default=0, ge=0, lt=2**63, description="Which documents are drawn.")
    serving: Serving = operational_field("How the teacher is served.", default=Serving())


class ClassifierConfig(StageConfig):
    """A fastText classifier trained on examples, and how far its probabilities can be believed."""

    examples: str = input_field("Labelled examples (contrast or annotate).", default="")
    min_ngram: int = Field(default=1, ge=0, le=8, description="Shortest character n-gram; 0 with max_ngram 0 = none.")
    max_ngram: int = Field(
        default=2, ge=0, le=8, description="Longest character n-gram: what CJK text has instead of words."
    )
    word_ngrams: int = Field(default=1, ge=1, le=5, description="Longest run of words; 2 for text with spaces.")
    min_count: int = Field(default=5, ge=1, description="A rarer word has n-grams but no entry of its own.")
    buckets: int = Field(default=1 << 18, ge=1, description="Hash buckets of the n-grams; dim x 4 bytes each.")
    dim: int = Field(default=16, ge=2, le=512, description="Length of a vector.")
    epochs: int = Field(default=10, ge=1, le=200, description="Passes over the examples.")
    learning_rate: float = Field(default=0.2, gt=0, le=2, description="At the beginning; it falls to zero.")
    quantize: bool = Field(default=False, description="Write a compressed model (.ftz): a tenth as large, less exact.")
    min_auc: float = Field(
        default=0.5, ge=0, le=1, description="A held-out area under the curve below this stops the run."
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Of the first weights and of the order of examples.")

    @model_validator(mode="after")
    def _ngrams_in_order(self) -> Self:
        if self.min_ngram > self.max_ngram or (self.max_ngram and not self.min_ngram):
            raise ValueError(
                f"min_ngram={self.min_ngram}, max_ngram={self.max_ngram}: n-grams run from the shortest (at least 1) "
                "to the longest, or are left out with 0 and 0. Correct one of them."
            )
        return self


class ScoreConfig(StageConfig):
    """The score of every document, in a sidecar; no text is written again."""

    documents: str = input_field("Documents to score.", default="")
    classifier: str = input_field("The classifier.", default="")
    group_by: Literal["snapshot", "source"] = Field(
        default="snapshot",
        description="What has its own histogram: the crawl (meta's snapshot, else the month of crawl_time) or source.",
    )
    workers: int = operational_field("Shards scored side by side; 0 = one a core.", default=0, ge=0)
    runner: Runner = operational_field(
        "local = processes of this machine; ray = tasks of the cluster at $RAY_ADDRESS.", default="local"
    )
    shared_disk: bool = operational_field(
        "ray: a store that is a path is the same disk on every node of the cluster.", default=False
    )


class CutConfig(StageConfig):
    """The best documents by score. Exactly one of top_fraction and min_score says which."""

    documents: str = input_field("The documents that were scored.", default="")
    scores: str = input_field("Their scores.", default="")
    reference: str = input_field("Scores of an earlier dump by the same classifier, to compare with.", default="")
    top_fraction: float | None = Field(
        default=0.1, gt=0, le=1, description="Share of documents to keep (Swallow v2: a tenth)."
    )
    skip_fraction: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="Best share to leave out: 0.1 of top_fraction 0.3 is the band of 10 to 30 %.",
    )
    min_score: float | None = Field(default=None, ge=0, description="Least score to keep, in the classifier's marks.")
    per: Literal["group", "all"] = Field(default="group", description="Cut each group by itself, or all together.")
    warn_drift: float = Field(
        default=0.1, gt=0, description="Population stability index against the reference from which a group is named."
    )
    max_drift: float | None = Field(default=None, gt=0, description="Index above which nothing is cut; empty = never.")
    workers: int = operational_field("Shards cut side by side; 0 = one a core.", default=0, ge=0)
    runner: Runner = operational_field(
        "local = processes of this machine; ray = tasks of the cluster at $RAY_ADDRESS.", default="local"
    )
    shared_disk: bool = operational_field(
        "ray: a store that is a path is the same disk on every node of the cluster.", default=False
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if (self.top_fraction is None) == (self.min_score is None):
            raise ValueError(
                f"top_fraction={self.top_fraction}, min_score={self.min_score}: exactly one of them says what is kept. "
                "Set the other to null."
            )
        if self.skip_fraction and self.skip_fraction >= (self.top_fraction or 0.0):
            raise ValueError(
                f"skip_fraction={self.skip_fraction}, top_fraction={self.top_fraction}: a band lies between both, so "
                "what is left out must be the smaller share. Lower skip_fraction, or set it to 0."
            )
        if self.max_drift is not None and not self.reference:
            raise ValueError(
                f"max_drift={self.max_drift} without a reference: drift is the distance from earlier scores. "
                "Name the scores of an earlier dump as reference, or leave max_drift empty."
            )
        return self
