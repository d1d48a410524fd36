"""Knobs of decontamination."""

from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.decontaminate.files import FORMATS, digest_of, suffix_of
from tasks.eval.benchmarks import BENCHMARKS


class ItemFile(StageConfig):
    """A file of benchmark items, one a line, row or list entry."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", description="Name of the benchmark in reasons and on the model card."
    )
    url: str = operational_field(
        f"The file: {', '.join(FORMATS)}; also packed: .gz, .bz2, .xz, .zst. In the identity is what it holds."
    )
    fields: tuple[str, ...] = Field(
        default=(),
        description="Fields whose texts must not be trained on: dotted paths (JSON; lists are entered, * is any), "
        "column names or numbers from 0 (tables). Blank = the whole line (.txt).",
    )
    id_field: str = Field(default="", description="Field that names an item; blank = its number from 0.")

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        suffix = suffix_of(self.url)
        if suffix not in FORMATS:
            raise ValueError(
                f"items {self.name!r}: url={self.url!r} ends in {suffix or 'nothing'}: items are read from "
                f"{', '.join(FORMATS)}, told by the name. Rename or convert the file."
            )
        if bool(self.fields) == (suffix == ".txt"):
            raise ValueError(
                f"items {self.name!r}: fields={self.fields} of a {suffix} file: a text file has whole lines, every "
                "other one has fields, and only some of them hold text. Name the fields with the question (and the "
                "context, the answer); leave them out for .txt."
            )
        return self


class Paraphrases(StageConfig):
    """Passages that are near an item though they share no window with it. For rows by the ten thousand, not corpora."""

    min_cosine: float = Field(
        default=0.6, gt=0, le=1, description="Cosine from which on a passage says the same (0.6 is for TF-IDF)."
    )
    min_margin: float = Field(
        default=0.15,
        gt=0,
        le=1,
        description="The same for the cosine above the mean of the four next items' (0.15 is for TF-IDF).",
    )
    embedder: tuple[str, ...] = operational_field(
        "Command of a child that answers a JSON string a line with a JSON list of numbers; blank = TF-IDF of letters.",
        default=(),
    )
    model: str = Field(default="", description="Name and revision of the embedder's model; blank for TF-IDF.")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if bool(self.embedder) != bool(self.model):
            raise ValueError(
                f"embedder={self.embedder} with model={self.model!r}: the command may change from machine to machine, "
                "what it computes with is part of the identity. Give both, or neither for TF-IDF."
            )
        return self


class DecontaminateConfig(StageConfig):
    """Rows that hold an item of a benchmark are dropped. At least one benchmark or file is looked for."""

    docs: str = input_field("Documents or conversations to clear: train/*.parquet or docs/*.parquet.", default="")
    heldout: tuple[str, ...] = input_field(
        "Artifacts whose heldout/*.parquet the registered benchmarks are made from, besides that of `docs`.", default=()
    )
    benchmarks: tuple[str, ...] = Field(
        default=(), description="Registered benchmarks whose items are looked for (tasks/eval/benchmarks)."
    )
    max_items: int = Field(
        default=500,
        gt=0,
        description="Items of a registered benchmark in one language; at least the evaluation's limit.",
    )
    files: tuple[ItemFile, ...] = Field(default=(), description="Files of items of other benchmarks.")
    word_ngram: int = Field(default=13, ge=2, le=100, description="Words of a window (GPT-3: 13).")
    char_ngram: int = Field(
        default=25, ge=2, le=400, description="Letters of a window in scripts without spaces between words."
    )
    min_words: int = Field(
        default=8, ge=1, le=100, description="Least words of an item that is looked for; shorter than a window: whole."
    )
    min_chars: int = Field(
        default=15, ge=1, le=400, description="The same in letters, for scripts without spaces between words."
    )
    min_share: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of an item's windows that a row must hold; 0 = one window is enough.",
    )
    min_similarity: float = Field(
        default=95.0,
        ge=0,
        le=100,
        description="Similarity of an item and a passage from which on they are the same; 0 compares none.",
    )
    paraphrases: Paraphrases | None = Field(
        default=None, description="Look for items said in other words too; blank = no."
    )
    max_documents: int = Field(
        default=0,
        ge=0,
        description="A window that more rows than this hold is a common phrase and not looked for; 0 = look for all.",
    )

    @field_validator("benchmarks")
    @classmethod
    def _registered(cls, benchmarks: tuple[str, ...]) -> tuple[str, ...]:
        for name in benchmarks:
            if name not in BENCHMARKS:
                raise ValueError(
                    f"benchmark {name!r} is not one of {', '.join(BENCHMARKS)}: each is a file of "
                    "tasks/eval/benchmarks. Use one of these, or give its items as a file in `files`."
                )
        return benchmarks

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        names = [*self.benchmarks, *(file.name for file in self.files)]
        if not names:
            raise ValueError(
                "benchmarks and files are both blank: without items every row is clean, and a corpus would be called "
                "decontaminated without a look. Name a benchmark or a file of items, or leave the stage out."
            )
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"benchmarks named twice: {', '.join(twice)}. A name says by which one a row was dropped. Rename one."
            )
        for least, full in (("min_words", "word_ngram"), ("min_chars", "char_ngram")):
            if getattr(self, least) > getattr(self, full):
                raise ValueError(
                    f"{least}={getattr(self, least)} is above {full}={getattr(self, full)}: items between the two "
                    f"would be looked for in no way. Set {least} to at most {full}."
                )
        return self

    def semantic(self) -> dict[str, Any]:
        """The knobs and what the files hold, wherever they lie."""
        declared = super().semantic()
        states = [digest_of(file.url) for file in self.files]
        return declared | {
            "files": [fields | {"sha256": sha} for fields, sha in zip(declared["files"], states, strict=True)]
        }
