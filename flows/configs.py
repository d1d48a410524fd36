"""Configs of the flows that make more than one artifact: the knobs of their stages, side by side."""

from typing import Self

from pydantic import Field, model_validator

from tasks.classify.config import AnnotateConfig, ClassifierConfig, ContrastConfig, CutConfig, ScoreConfig
from tasks.config import StageConfig
from tasks.decontaminate.config import DecontaminateConfig
from tasks.ingest.config import CleanConfig, DedupConfig, MirrorConfig
from tasks.instruct.config import InstructConfig
from tasks.pack.config import PackConfig, TokenizerConfig
from tasks.synth.config import SynthConfig
from tasks.teach.config import TeachConfig
from tasks.teacher.config import TeacherConfig
from tasks.train.config import TrainConfig


class CorpusConfig(StageConfig):
    """One corpus: where its pages come from, what is kept, what counts as a duplicate."""

    mirror: MirrorConfig = Field(description="Sources to copy once into the store.")
    clean: CleanConfig = Field(description="Decoding, extraction, language and quality rules.")
    dedup: DedupConfig = Field(description="Exact and near duplicates, and the held-out split.")
    decontaminate: DecontaminateConfig | None = Field(
        default=None, description="Benchmarks whose items are dropped after deduplication; blank = none."
    )


class IngestConfig(StageConfig):
    """Raw pages of several corpora to clean, deduplicated documents."""

    corpora: dict[str, CorpusConfig] = Field(description="Corpus name -> its stages. The name is the output's name.")
    only: tuple[str, ...] = Field(default=(), description="Corpora to make, by name; empty makes all of them.")

    @model_validator(mode="after")
    def _only_names_corpora(self) -> Self:
        if unknown := set(self.only) - set(self.corpora):
            raise ValueError(
                f"only={sorted(unknown)} names no corpus but {', '.join(self.corpora)}: a corpus is made from its row. "
                "Correct the name, or add the corpus to the preset."
            )
        return self


class ClassifyFlowConfig(StageConfig):
    """Examples to a classifier, scores and a cut. Examples are made by origin or by a teacher: exactly one of both."""

    contrast: ContrastConfig | None = Field(default=None, description="Examples by origin: sources against sources.")
    annotate: AnnotateConfig | None = Field(default=None, description="Examples by a teacher's marks from 0 to 3.")
    classifier: ClassifierConfig = Field(description="How the classifier is trained.")
    score: ScoreConfig = Field(description="Which documents are scored.")
    cut: CutConfig = Field(description="Which of them are kept.")

    @model_validator(mode="after")
    def _one_kind_of_examples(self) -> Self:
        if (self.contrast is None) == (self.annotate is None):
            raise ValueError(
                f"contrast is {'not ' if self.contrast else ''}empty, annotate is {'not ' if self.annotate else ''}"
                "empty: a classifier learns from one kind of examples. Fill exactly one."
            )
        return self


class SynthFlowConfig(StageConfig):
    """Documents to synthetic documents, one artifact a recipe."""

    teachers: dict[str, TeacherConfig] = Field(description="Teacher name -> the model it is.")
    recipes: dict[str, SynthConfig] = Field(description="Output name -> recipe, its source documents and its teacher.")
    decontaminate: DecontaminateConfig | None = Field(
        default=None, description="Benchmarks whose items are dropped from what the teachers wrote; blank = none."
    )


class PackFlowConfig(StageConfig):
    """Documents to training records: one tokenizer and any number of mixtures."""

    tokenizer: TokenizerConfig = Field(description="The tokenizer trained on the ingested text.")
    mixtures: dict[str, PackConfig] = Field(description="Output name -> mixture by token budget.")


class InstructFlowConfig(StageConfig):
    """Teachers to conversations, and the conversations packed for SFT."""

    recipes: dict[str, InstructConfig] = Field(description="Output name -> prompts, answers and gates.")
    decontaminate: DecontaminateConfig | None = Field(
        default=None, description="Benchmarks whose items are dropped from the conversations; blank = none."
    )
    pack: PackConfig = Field(description="How the conversations become training records.")


class DistillFlowConfig(StageConfig):
    """A teacher asked about training records, and a student trained on its answers."""

    teach: TeachConfig = Field(description="The teacher, and how much of what it expects is kept.")
    train: TrainConfig = Field(description="The student's run, on the same records.")
