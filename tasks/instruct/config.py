"""Knobs of the instruction stage."""

from pydantic import Field

from tasks.config import StageConfig, input_field, operational_field
from tasks.generation.server import Serving


class InstructGates(StageConfig):
    """What a conversation must be to be kept. A row that fails is kept in rejects/ with the name of the gate."""

    min_prompt_chars: int = Field(default=12, ge=0, description="Shortest prompt, in characters.")
    max_prompt_chars: int = Field(default=600, gt=0, description="Longest prompt, in characters.")
    min_answer_chars: int = Field(default=12, ge=0, description="Shortest answer, in characters.")
    max_answer_chars: int = Field(default=4000, gt=0, description="Longest answer, in characters.")
    max_repeated: float = Field(
        default=0.2, ge=0, le=1, description="Share of the text that one repeated run of 10 characters may cover."
    )
    allow_code_and_maths: bool = Field(
        default=True, description="Keep prompts about code or calculation; the smallest teachers get both wrong."
    )
    max_similarity: float = Field(
        default=0.7, gt=0, le=1, description="Jaccard similarity of character 5-grams above which prompts are the same."
    )


class InstructConfig(StageConfig):
    """Prompts and answers from one teacher in one language."""

    teacher: str = input_field("The model that writes prompts and answers.")
    language: str = Field(description="Language of the conversations: en or ja.")
    num_prompts: int = Field(gt=0, description="Prompts that are drawn; gates keep a part of them.")
    max_prompt_tokens: int = Field(default=64, gt=0, description="Tokens of one prompt, at most.")
    max_answer_tokens: int = Field(default=160, gt=0, description="Tokens of one answer, at most.")
    temperature: float = Field(default=1.0, gt=0, le=2, description="Of prompts; answers are greedy.")
    top_p: float = Field(default=1.0, gt=0, le=1, description="Of prompts: share of the probability to draw from.")
    brief_answers: bool = Field(
        default=False, description="Ask for one or two sentences, with examples: for small teachers, which ramble."
    )
    held_out_fraction: float = Field(default=0.1, gt=0, lt=1, description="Share of conversations kept for evaluation.")
    seed: int = Field(default=0, description="Which prompts are drawn.")
    unit_requests: int = Field(default=50, gt=0, description="Prompts in one unit of work and one output shard.")
    preview_requests: int = Field(default=50, gt=0, description="Prompts after which the yield is first looked at.")
    min_yield: float = Field(default=0.05, ge=0, le=1, description="Least share of prompts that become conversations.")
    gates: InstructGates = Field(default=InstructGates(), description="What a conversation must be.")
    serving: Serving = operational_field("How the teacher is served.", default=Serving())
