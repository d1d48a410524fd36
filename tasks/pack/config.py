"""What the pack stage can be told."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.config import StageConfig, input_field
from tasks.pack.published import expand

NAME = r"^[a-z0-9][a-z0-9_.-]*$"


class TokenizerConfig(StageConfig):
    """One tokenizer: SentencePiece BPE with Gemma's settings."""

    documents: tuple[str, ...] = input_field("Documents whose text the vocabulary is learnt from.", default=())
    vocab_size: int = Field(ge=300, description="Number of token ids, the special ones and 256 bytes included.")
    sample_bytes: int = Field(gt=0, description="Bytes of text to learn from, at most, from each input.")
    character_coverage: float = Field(
        default=0.9995, gt=0, le=1, description="Part of all characters that get an id of their own; the rest is bytes."
    )


class SourceShare(BaseModel):
    """The part one source has in the mixture."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME, description="Name in the mixture and of the folder of records.")
    language: str = Field(description="Language code of the source (ja, en, python …).")
    input: int = Field(ge=0, description="Which of `documents` it is, counted from 0.")
    weight: float = Field(
        default=1.0, gt=0, description="Share of what `tokens` and `epochs` of others leave of the budget, relative."
    )
    tokens: int | None = Field(
        default=None, gt=0, description="Budget in tokens, over all epochs, instead of a weight."
    )
    epochs: float | None = Field(default=None, gt=0, description="Passes over the source, exact, instead of a weight.")
    max_epochs: float = Field(
        default=1.0, gt=0, description="Times a document may be seen, at most, to fill a weight or `tokens`."
    )

    @model_validator(mode="after")
    def _is_said_once(self) -> Self:
        if self.tokens is not None and self.epochs is not None:
            raise ValueError(
                f"{self.name}: tokens={self.tokens:,} and epochs={self.epochs:g}: each is a budget, and a source has "
                "one. Keep the one that counts."
            )
        return self


class Phase(BaseModel):
    """A part of the training, in its place in the order, with a mixture of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=NAME, description="Name in the report.")
    share: float = Field(gt=0, description="Part of the token budget, relative to the other phases.")
    weights: dict[str, float] = Field(
        min_length=1, description="Name of a source -> its share of this phase, relative; others give nothing in it."
    )

    @model_validator(mode="after")
    def _weights_are_positive(self) -> Self:
        if wrong := {name: weight for name, weight in self.weights.items() if not weight > 0}:
            raise ValueError(
                f"phase {self.name}: weights {wrong} are not above 0: a source that gives nothing in a phase is not "
                "named there. Leave it out, or give it a weight."
            )
        return self


class PackConfig(StageConfig):
    """One mixture: which sources, in which shares of a token budget."""

    documents: tuple[str, ...] = input_field(
        "What to pack: documents or conversations; a flow may give its own.", default=()
    )
    tokenizer: str = input_field(
        "What counts the tokens: a tokenizer, or the model that will go on learning; a flow may give its own.",
        default="",
    )
    kind: Literal["text", "chat"] = Field(description="text for documents, chat for conversations.")
    sources: tuple[SourceShare, ...] = Field(
        min_length=1,
        description="The mixture; or {published: NAME, inputs: {SOURCE: place in `documents`}} for one that is known.",
    )
    phases: tuple[Phase, ...] = Field(
        default=(), description="A curriculum: phases one after the other, each with weights of its own; empty is one."
    )
    total_tokens: int | None = Field(
        gt=0, description="Token budget of the mixture; empty takes every source whole, once, and leaves weights aside."
    )
    on_shortfall: Literal["refuse", "spread"] = Field(
        default="refuse",
        description="When a source cannot fill its share within max_epochs: stop, or spread the rest over the others.",
    )

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        asked = data.get("sources") if isinstance(data, Mapping) else None
        return {**data, **expand(asked, data)} if isinstance(asked, Mapping) else data

    @model_validator(mode="after")
    def _sources_are_sound(self) -> Self:
        names = [source.name for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(
                f"sources are named {names}: a name is a folder of records and must be there once. Rename the second."
            )
        wrong = [f"{s.name}: input={s.input}" for s in self.sources if s.input >= len(self.documents)]
        if self.documents and wrong:
            raise ValueError(
                f"{', '.join(wrong)}: `documents` has {len(self.documents)} entries, counted from 0. "
                "Add the reference to `documents` or correct the number."
            )
        return self

    @model_validator(mode="after")
    def _budgets_are_sound(self) -> Self:
        fixed = [source for source in self.sources if source.tokens is not None]
        said = sum(source.tokens or 0 for source in fixed)
        if self.total_tokens is None or not fixed or any(source.epochs for source in self.sources):
            return self
        others = len(self.sources) - len(fixed)
        if said > self.total_tokens - others or (not others and said < self.total_tokens):
            rest = f"and {others} more need a part" if others else "and nothing else takes the rest"
            raise ValueError(
                f"the sources ask for {said:,} tokens {rest}, total_tokens={self.total_tokens:,}: the budgets of a "
                "mixture add up to its total. Correct one of them, or leave total_tokens empty."
            )
        return self

    @model_validator(mode="after")
    def _phases_are_sound(self) -> Self:
        if not self.phases:
            return self
        names, phases = {source.name for source in self.sources}, [phase.name for phase in self.phases]
        used = {name for phase in self.phases for name in phase.weights}
        if used != names or len(set(phases)) < len(phases):
            raise ValueError(
                f"phases {phases} use the sources {sorted(used)}, there are {sorted(names)}: each phase has its own "
                "name, and each source is in at least one phase, because it would be packed and never read. Correct "
                "the names, or take the source out."
            )
        if self.total_tokens is None or any(source.tokens or source.epochs for source in self.sources):
            raise ValueError(
                f"phases {phases} need total_tokens, and sources without tokens or epochs of their own: a phase is a "
                "share of the total, and its weights share it out. Set total_tokens and use the weights of the phases."
            )
        return self
