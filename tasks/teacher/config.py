"""Which model teaches: the packages that carry it, the digest it must have, and the terms it comes under."""

import os

from pydantic import Field, field_validator

from tasks.config import StageConfig, operational_field
from tasks.errors import ConfigError

ACCEPT_GEMMA = "NESTLING_ACCEPT_GEMMA_TERMS"
GEMMA_LICENCE = "gemma"


def gemma_terms_accepted() -> bool:
    """Whether the user of this machine has accepted the Gemma terms of use."""
    return os.environ.get(ACCEPT_GEMMA) == "1"


class TeacherConfig(StageConfig):
    """One teacher model, as a GGUF file inside pinned Python packages."""

    model_name: str = Field(description="What the model is called in records, cards and licences.")
    packages: tuple[str, ...] = Field(
        min_length=1, description="Pinned packages (name==version) that carry the file, in the order of its parts."
    )
    gguf_sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Digest the joined GGUF file must have.")
    licence: str = Field(description="Licence id of the weights; an id of tasks/licences.py.")
    chat: bool = Field(description="Tuned to answer in turns; a base model (false) only continues text.")
    cache_dir: str = operational_field("Where downloaded packages are kept between runs.", default=".cache/teachers")

    @field_validator("packages")
    @classmethod
    def _pinned(cls, packages: tuple[str, ...]) -> tuple[str, ...]:
        for package in packages:
            if package.count("==") != 1:
                raise ValueError(
                    f"package {package!r} has no exact version: a teacher is identified by exact packages, "
                    "because another version may carry other weights. Write name==version."
                )
        return packages

    def check_machine(self) -> None:
        """Stop before anything is fetched when the terms of the model were not accepted.

        Raises:
            ConfigError: the model is under the Gemma terms and the user has not accepted them.
        """
        if self.licence == GEMMA_LICENCE and not gemma_terms_accepted():
            raise ConfigError(
                f"teacher {self.model_name} is under the Gemma Terms of Use, and {ACCEPT_GEMMA} is "
                f"{os.environ.get(ACCEPT_GEMMA) or 'not set'}: its weights may be fetched only by someone who accepts "
                "the terms, because they bind what is made with it. Read https://ai.google.dev/gemma/terms; if you "
                f"accept, run again with {ACCEPT_GEMMA}=1, else leave out the steps that use this teacher."
            )
