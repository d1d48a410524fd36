"""Knobs of the ingest stages. A filter's thresholds are fields under its name: `filters.length.min_chars`."""

from typing import Any, Self

from pydantic import Field, create_model, field_validator, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.ingest.edits import EDITS
from tasks.ingest.extractors import EXTRACTORS
from tasks.ingest.filters import FILTERS
from tasks.ingest.languages import LANGUAGES
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import SourceConfig
from tasks.shard_workers import Runner

__all__ = ["CleanConfig", "DedupConfig", "EditSet", "FilterSet", "MirrorConfig", "SourceConfig"]


class MirrorConfig(StageConfig):
    """Copy the raw pages of some sources into the store, once."""

    sources: tuple[SourceConfig, ...] = Field(min_length=1, description="Where the pages come from.")
    max_page_bytes: int = Field(default=10_000_000, gt=0, description="A larger page is a reject (too_large).")
    shard_pages: int = Field(default=400, gt=0, description="Most pages of one shard.")
    shard_bytes: int = Field(default=16 << 20, gt=0, description="A shard ends after so many bytes of pages.")

    @field_validator("sources")
    @classmethod
    def _can_be_read(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        for source in sources:
            if source.kind not in SOURCES:
                raise ValueError(
                    f"source {source.name!r}: kind={source.kind!r} is not one of {', '.join(SOURCES)}: "
                    "a kind is a reader in tasks/ingest/sources. Use one of these."
                )
        names = [source.name for source in sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(
                f"sources named twice: {', '.join(twice)}. A name says where a document came from. Rename one."
            )
        return sources

    def semantic(self) -> dict[str, Any]:
        """The declared sources and the state they are in: a local source is what it holds, wherever it lies."""
        declared = super().semantic()
        states = [SOURCES[source.kind].state(source) for source in self.sources]
        return declared | {
            "sources": [fields | {"state": state} for fields, state in zip(declared["sources"], states, strict=True)]
        }


FilterSet: type[StageConfig] = create_model(
    "FilterSet",
    __base__=StageConfig,
    __module__=__name__,
    __doc__="Thresholds of each filter that is applied; a filter that is none is not applied.",
    **{
        name: (kind.rules | None, Field(default=None, description=(kind.rules.__doc__ or "").split("\n")[0]))
        for name, kind in FILTERS.items()
    },  # type: ignore[arg-type]
)


EditSet: type[StageConfig] = create_model(
    "EditSet",
    __base__=StageConfig,
    __module__=__name__,
    __doc__="Knobs of each edit that is applied; an edit that is none is not applied.",
    **{
        name: (kind.rules | None, Field(default=None, description=(kind.rules.__doc__ or "").split("\n")[0]))
        for name, kind in EDITS.items()
    },  # type: ignore[arg-type]
)


class CleanConfig(StageConfig):
    """Raw pages to documents of one language: decode, extract, identify, judge."""

    pages: str = input_field("Mirrored pages.", default="")

    language: str = Field(
        description="Language pack: what a page must be in, how it is normalised, which rules hold.",
        json_schema_extra={"enum": list(LANGUAGES)},
    )
    filters: FilterSet = Field(  # pyright: ignore[reportInvalidTypeForm] - made from FILTERS
        default=None, validate_default=False, description="Rules and their thresholds; default = the language pack's."
    )
    edits: EditSet = Field(  # pyright: ignore[reportInvalidTypeForm] - made from EDITS
        default=EditSet(), description="What is rewritten in texts, and how; default = nothing."
    )
    language_gate: bool = Field(
        default=False,
        description="For crawls of all languages: pages whose head shows no Japanese are not extracted (Swallow v1).",
    )
    extractor: str = Field(
        default="resiliparse",
        description="Engine that finds the text in HTML: one of tasks/ingest/extractors.",
        json_schema_extra={"enum": list(EXTRACTORS)},
    )
    skip_elements: tuple[str, ...] = Field(
        default=("nav", ".toc", "#toc", ".navheader", ".navfooter", ".sphinxsidebar", "script", "style"),
        description="CSS selectors of elements whose text is left out (html).",
    )
    min_foreign_words: int = Field(
        default=0,
        ge=0,
        description="Lines with so many words and no character of the language are cut out; 0 = none (ja).",
    )
    extract_timeout_s: float = Field(default=20, gt=0, description="A page whose extraction takes longer is a reject.")
    min_kana_fraction: float = Field(
        default=0.1, gt=0, le=1, description="Share of kana among letters from which a text is Japanese at once."
    )
    min_language_probability: float = Field(
        default=0.5, ge=0, le=1, description="Least probability of the language model's answer, where it is asked."
    )
    workers: int = operational_field("Shards cleaned side by side; 0 = one a core.", default=0, ge=0)
    runner: Runner = operational_field(
        "local = processes of this machine; ray = tasks of the cluster at $RAY_ADDRESS.", default="local"
    )
    shared_disk: bool = operational_field(
        "ray: a store that is a path is the same disk on every node of the cluster.", default=False
    )

    @field_validator("language")
    @classmethod
    def _has_a_pack(cls, value: str) -> str:
        if value not in LANGUAGES:
            raise ValueError(
                f"language={value!r} has no pack; there are {', '.join(LANGUAGES)}. A pack holds the rules of a "
                "language. Use one of these, or add tasks/ingest/languages/<code>.py."
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _rules_of_the_pack(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("filters") is None and data.get("language") in LANGUAGES:
            return data | {"filters": dict(LANGUAGES[data["language"]].filters)}
        return data

    @model_validator(mode="after")
    def _gate_of_the_language(self) -> Self:
        if self.language_gate and self.language != "ja":
            raise ValueError(
                f"language_gate=true with language={self.language!r}: the gate looks for Japanese and would leave all "
                "pages out. Leave language_gate false."
            )
        return self

    def semantic(self) -> dict[str, Any]:
        """What is not applied is no part of the identity: a new filter or edit in the registry changes nothing here."""
        declared = super().semantic()
        return declared | {
            group: {name: rules for name, rules in declared[group].items() if rules is not None}
            for group in ("filters", "edits")
        }

    def applied(self) -> dict[str, StageConfig]:
        """Name and thresholds of the filters to apply, in the order of FILTERS."""
        return {name: rules for name in FILTERS if (rules := getattr(self.filters, name)) is not None}

    def edited(self) -> dict[str, StageConfig]:
        """Name and knobs of the edits to apply, in the order of EDITS."""
        return {name: rules for name in EDITS if (rules := getattr(self.edits, name)) is not None}


class DedupConfig(StageConfig):
    """Exact and near duplicates out; a held-out part that no training document comes near."""

    docs: str = input_field("Clean documents.", default="")

    ngram: int = Field(default=5, ge=1, le=32, description="Characters of a shingle (Swallow: 5).")
    bands: int = Field(default=40, ge=1, le=1000, description="Buckets a document is put into (Swallow: 40).")
    rows: int = Field(default=20, ge=1, le=100, description="Hashes that name a bucket (Swallow: 20).")
    min_jaccard: float = Field(
        default=0.8, gt=0, le=1, description="Pairs that share a bucket are compared exactly; from here on, duplicates."
    )
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
    seed: int = Field(default=0, ge=0, description="Of the hashes and of the choice of held-out documents.")

    @model_validator(mode="after")
    def _fits_the_sketch(self) -> Self:
        if self.bands * self.rows > 4096:
            raise ValueError(
                f"bands={self.bands} x rows={self.rows} = {self.bands * self.rows} hashes a document, at most 4,096: "
                "more cost memory and find nothing new. Lower one of them."
            )
        return self
