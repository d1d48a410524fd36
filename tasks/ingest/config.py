"""Knobs of the ingest stages. A filter's thresholds are fields under its name: `filters.length.min_chars`."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, create_model, field_validator, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.ingest.dedup.config import DedupConfig
from tasks.ingest.edits import EDITS
from tasks.ingest.edits.edit import Edit
from tasks.ingest.extractors import DEFAULT, EXTRACTORS
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.presets import RULES, rebased
from tasks.ingest.filters.rule import Filter
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


def _set_of(name: str, doc: str, kinds: Mapping[str, Filter | Edit]) -> type[StageConfig]:
    """A config with a field for the knobs of each kind, none = not applied."""
    fields: dict[str, Any] = {
        kind: (each.rules | None, Field(default=None, description=(each.rules.__doc__ or "").split("\n")[0]))
        for kind, each in kinds.items()
    }
    return create_model(name, __base__=StageConfig, __module__=__name__, __doc__=doc, **fields)


FilterSet = _set_of(
    "FilterSet", "Thresholds of each filter that is applied; a filter that is none is not applied.", FILTERS
)
EditSet = _set_of("EditSet", "Knobs of each edit that is applied; an edit that is none is not applied.", EDITS)


class CleanConfig(StageConfig):
    """Raw pages to documents of one language: decode, extract, identify, judge."""

    pages: str = input_field("Mirrored pages.", default="")

    language: str = Field(
        description="Language pack: what a page must be in, how it is normalised, which rules hold.",
        json_schema_extra={"enum": list(LANGUAGES)},
    )
    rules: str = operational_field(
        "Set of rules that `filters` start from, by name; empty = the language pack's. Identity is in the thresholds.",
        default="",
    )
    filters_from: str = operational_field("Filled in: the `rules` that `filters` were made from.", default="")
    filters: FilterSet = Field(  # pyright: ignore[reportInvalidTypeForm] - made from FILTERS
        default=None, validate_default=False, description="Rules and their thresholds; default = the language pack's."
    )
    edits: EditSet = Field(  # pyright: ignore[reportInvalidTypeForm] - made from EDITS
        default=None, validate_default=False, description="What is rewritten, and how; default = the language pack's."
    )
    language_gate: bool = Field(
        default=False,
        description="For crawls of all languages: pages whose head shows no Japanese are not extracted (Swallow v1).",
    )
    extractor: str = Field(
        default=DEFAULT,
        description="Engine that finds the text in HTML: one of tasks/ingest/extractors.",
        json_schema_extra={"enum": list(EXTRACTORS)},
    )
    skip_elements: tuple[str, ...] = Field(
        default=("nav", ".toc", "#toc", ".navheader", ".navfooter", ".sphinxsidebar", "script", "style"),
        description="CSS selectors of elements whose text is left out (html).",
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
        if not isinstance(data, dict) or data.get("language") not in LANGUAGES:
            return data
        sets = {"": LANGUAGES[data["language"]].filters} | RULES
        name, before, filters = data.get("rules", ""), data.get("filters_from"), data.get("filters")
        if name not in sets:
            raise ValueError(
                f"rules={name!r} is not one of {', '.join(RULES)}: a set of rules is a row of "
                "tasks/ingest/filters/presets.py. Use one of these, or none for those of the language pack."
            )
        if filters is None:
            filters = dict(sets[name])
        elif before is not None and before != name:  # thresholds that were changed stay changed
            filters = rebased(filters, sets[before], sets[name])
        edits = dict(LANGUAGES[data["language"]].edits) if data.get("edits") is None else data["edits"]
        return data | {"filters": filters, "filters_from": name, "edits": edits}

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
