"""Knobs of the synthesis stage."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.generation.server import Serving


class SynthGates(StageConfig):
    """What an answer must be to be kept. A row that fails is kept in rejects/ with the name of the gate."""

    min_chars: int = Field(default=24, ge=0, description="Shortest answer, in characters (per code: lines count).")
    max_chars: int = Field(default=6000, gt=0, description="Longest answer, in characters.")
    min_grounded: float = Field(
        default=0.7, ge=0, le=1, description="Share of the answer's content words that the passage must hold."
    )
    max_copied: float = Field(
        default=0.9, ge=0, le=1, description="Share of the question that may be one run copied from the passage."
    )
    max_repeated: float = Field(
        default=0.2, ge=0, le=1, description="Share of the text that one repeated run of 10 characters may cover."
    )
    min_length_ratio: float = Field(
        default=0.5, ge=0, description="Code: rewritten length over original length, least."
    )
    max_length_ratio: float = Field(default=3.0, gt=0, description="Code: rewritten length over original length, most.")
    min_kept_names: float = Field(
        default=0.8, ge=0, le=1, description="Code: share of the names in the original that the rewrite must use."
    )
    same_code: bool = Field(
        default=True,
        description="Code: the rewrite must have the original's syntax tree, but for annotations and docstring.",
    )


class SynthConfig(StageConfig):
    """One recipe over one set of documents."""

    documents: str = input_field("Documents to write from: a deduplicated corpus; its train/ part is read.")
    teacher: str = input_field("The model that writes.")
    recipe: Literal["qa", "question", "code_rewrite", "code_document"] = Field(
        description="How to write; see tasks/synth/recipes."
    )
    language: str = Field(description="Language of the documents and of what is written: ja, en or python.")
    max_requests: int = Field(gt=0, description="Requests in the whole run, one a chunk.")
    chunks_per_document: int = Field(default=2, gt=0, description="Chunks taken of one document, from its beginning.")
    chunk_tokens: int = Field(default=256, gt=0, description="Tokens of the teacher in one chunk, at most.")
    max_new_tokens: int = Field(default=160, gt=0, description="Tokens of one answer, at most.")
    seed: int = Field(default=0, description="Which documents are taken when there are more than are needed.")
    unit_requests: int = Field(default=32, gt=0, description="Requests in one unit of work and one output shard.")
    preview_requests: int = Field(default=32, gt=0, description="Answers after which the yield is first looked at.")
    min_yield: float = Field(default=0.05, ge=0, le=1, description="Least share of answers that must pass the gates.")
    gates: SynthGates = Field(default=SynthGates(), description="What an answer must be.")
    serving: Serving = operational_field("How the teacher is served.", default=Serving())

    @model_validator(mode="after")
    def _recipe_fits_language(self) -> Self:
        wanted = ("python",) if self.recipe.startswith("code_") else ("en", "ja")
        if self.language not in wanted:
            raise ValueError(
                f"recipe={self.recipe!r} does not know language={self.language!r} but {', '.join(wanted)}: prompts and "
                "gates are written for a language. Choose another recipe, or add the language to the recipe's file."
            )
        return self
