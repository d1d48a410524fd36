"""The ways to synthesise: one file each, one line here."""

from tasks.synth.recipes import code_document, code_rewrite, qa, question
from tasks.synth.recipes.recipe import Recipe

RECIPES: dict[str, Recipe] = {
    "qa": qa.RECIPE,
    "question": question.RECIPE,
    "code_rewrite": code_rewrite.RECIPE,
    "code_document": code_document.RECIPE,
}
