"""What the pack stage can be told."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tasks.config import StageConfig, input_field


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

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9_.-]*$", description="Name in the mixture and of the folder of records."
    )
    language: str = Field(description="Language code of the source (ja, en, python …).")
    input: int = Field(ge=0, description="Which of `documents` it is, counted from 0.")
    weight: float = Field(default=1.0, gt=0, description="Share of the token budget, relative to the other sources.")
    max_epochs: float = Field(
        default=1.0, gt=0, description="Times a document may be seen, at most, to fill the share."
    )


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
    sources: tuple[SourceShare, ...] = Field(min_length=1, description="The mixture.")
    total_tokens: int | None = Field(
        gt=0, description="Token budget of the mixture; empty takes every source whole, once, and leaves weights aside."
    )
    on_shortfall: Literal["refuse", "spread"] = Field(
        default="refuse",
        description="When a source cannot fill its share within max_epochs: stop, or spread the rest over the others.",
    )

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
