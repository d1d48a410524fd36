"""Knobs of a release."""

import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from tasks.config import StageConfig, input_field, operational_field
from tasks.errors import ConfigError

DEFAULT_RISKS = (
    "The model repeats what its training texts say, errors and prejudices included, and it invents facts. It was not "
    "aligned by human feedback and has no safety filter. Check what it says before relying on it."
)


class ReleaseConfig(StageConfig):
    """What the published model is called and what its card says beyond what the lineage knows."""

    model: str = input_field("The train artifact to publish.")
    eval: str = input_field("Its evaluation, for the tables of the card; blank for none.", default="")
    model_name: str = Field(description="Directory and title of the model; licences may ask for a part (Llama).")
    languages: tuple[str, ...] = Field(min_length=1, description="Language codes of the card's front matter.")
    description: str = Field(default="", description="A paragraph at the top of the card, Markdown.")
    base_models: tuple[str, ...] = Field(
        default=(), description="Hub ids of the models this one was trained from, for the front matter."
    )
    before: str = Field(default="base", description="Label of the model that evaluation tables compare with.")
    risks: str = Field(default=DEFAULT_RISKS, description="The section on risks and limits, Markdown.")
    citation: str = Field(default="", description="BibTeX, shown as it is.")
    licence_files: dict[str, str] = Field(
        default={},
        description="File name -> local path of licence texts that the lineage does not bring, as LICENSE-LLAMA.",
    )
    proof_texts: tuple[str, ...] = Field(
        default=("To install a package, run", "日本語の文書では、", "def main():"),
        min_length=1,
        description="Texts that transformers and vLLM must continue exactly as our decoder does.",
    )
    proof_messages: tuple[str, ...] = Field(
        default=("パッケージとは何ですか?",),
        description="User messages that must be answered exactly alike through the chat template.",
    )
    proof_tokens: int = Field(default=32, gt=0, le=256, description="New tokens compared for each prompt.")
    serve: bool = Field(default=True, description="Prove that vLLM serves the model too; off: transformers only.")

    start_timeout_s: float = operational_field("Longest wait for the vLLM server to start.", default=300.0, gt=0)

    def semantic(self) -> dict[str, Any]:
        """Licence texts count by their content, not by where they lie."""
        digests = {name: hashlib.sha256(_read(place)).hexdigest() for name, place in self.licence_files.items()}
        return super().semantic() | {"licence_files": digests}

    @field_validator("model_name")
    @classmethod
    def _is_directory_name(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}", name):
            raise ValueError(
                f"model_name={name!r}: it becomes a directory and a hub id, so it has letters, digits, '.', '_' and "
                "'-' only, begins with a letter or digit, and is at most 96 long. Choose such a name."
            )
        return name

    @field_validator("licence_files")
    @classmethod
    def _are_file_names(cls, files: dict[str, str]) -> dict[str, str]:
        for name in files:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
                raise ValueError(f"licence_files key {name!r} is not a plain file name: it is placed in LICENSES/.")
        return files


def _read(place: str) -> bytes:
    try:
        return Path(place).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"licence_files names {place}, which cannot be read ({error.strerror}): the text of a licence goes with "
            "the release. Correct the path, or fetch the text from where the licence is published."
        ) from error
