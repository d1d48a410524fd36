"""Knobs of the report stage."""

from pydantic import Field

from tasks.config import StageConfig, input_field


class ReportConfig(StageConfig):
    """One HTML page about a factory run: what it reads is everything behind its inputs."""

    release: str = input_field("The released model.", default="")
    evaluation: str = input_field("The evaluation of its models.", default="")
    others: tuple[str, ...] = input_field("Further artifacts whose lineage the page shows.", default=())

    title: str = Field(
        default="", max_length=120, description="Heading of the page; blank = the released model's name."
    )
    before: str = Field(default="base", description="Label of the model that the headline compares with.")
    after: str = Field(default="cpt", description="Label of the model that the headline is about.")
    samples: int = Field(default=4, ge=0, le=50, description="Rows shown for each reason, recipe and prompt set.")
    sample_chars: int = Field(default=700, ge=40, le=20_000, description="Characters shown of each text.")
    warnings: tuple[str, ...] = Field(
        default=(), description="Lines shown on top, such as: an expensive stage is a hit although its code changed."
    )
