"""What the teach stage can be told."""

from typing import Literal

from pydantic import Field

from tasks.config import StageConfig, input_field, operational_field


class TeachConfig(StageConfig):
    """What a model expects after each token of training records, a few words a token."""

    data: str = input_field("The records (a pack artifact); the student must train on the same one.", default="")
    model: str = input_field("The teacher: a model with the tokenizer of the records.", default="")
    words: int = Field(default=64, ge=1, le=1024, description="Words kept after each token; six bytes each.")
    choose: Literal["top", "drawn"] = Field(
        default="drawn",
        description="drawn keeps draws from the whole distribution, an estimate without bias (Gemma 2); top the most "
        "likely words, scaled to sum to one.",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="Of the draws.")
    window: int | None = Field(
        default=None,
        gt=1,
        description="Tokens that the teacher sees at a time; longer records are cut. Empty takes the model's longest.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="Type of the teacher's activations.")
    batch_tokens: int = operational_field("Tokens computed at a time.", default=8192, ge=1)
