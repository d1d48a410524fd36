"""Knobs of the synthesis stage."""

from typing import Self

from pydantic import Field, model_validator

from tasks.config import input_field, operational_field
from tasks.generation.server import Serving
from tasks.synth.recipes import RECIPES
from tasks.synth.recipes.recipe import RecipeConfig, SynthGates

__all__ = ["SynthConfig", "SynthGates"]


class SynthConfig(RecipeConfig):
    """One recipe over one set of documents."""

    documents: str = input_field("Documents to write from: a deduplicated corpus; its train/ part is read.")
    teacher: str = input_field("The model that writes.")
    recipe: str = Field(description="How to write; see tasks/synth/recipes.", json_schema_extra={"enum": list(RECIPES)})
    max_requests: int = Field(gt=0, description="Requests in the whole run, one a chunk.")
    chunks_per_document: int = Field(default=2, gt=0, description="Chunks taken of one document, from its beginning.")
    seed: int = Field(default=0, description="Which documents are taken when there are more than are needed.")
    unit_requests: int = Field(default=32, gt=0, description="Requests in one unit of work and one output shard.")
    preview_requests: int = Field(default=32, gt=0, description="Answers after which the yield is first looked at.")
    min_yield: float = Field(default=0.05, ge=0, le=1, description="Least share of answers that must pass the gates.")
    serving: Serving = operational_field("How the teacher is served.", default=Serving())

    @model_validator(mode="after")
    def _recipe_fits_language(self) -> Self:
        if self.recipe not in RECIPES:
            raise ValueError(
                f"recipe={self.recipe!r} is not one of {', '.join(RECIPES)}: each is a file of tasks/synth/recipes. "
                "Use one of these, or add a file and a line in recipes/__init__.py."
            )
        wanted = RECIPES[self.recipe].languages
        if self.language not in wanted:
            raise ValueError(
                f"recipe={self.recipe!r} does not know language={self.language!r} but {', '.join(wanted)}: prompts and "
                "gates are written for a language. Choose another recipe, or add the language to the recipe's file."
            )
        return self
