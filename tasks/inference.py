"""A Hugging Face directory, opened natively: its tokenizer and our decoder with its weights.

Shared by the stages that ask a trained model something (evaluation, the release proof, the terminal chat).
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from tasks.artifact import Artifact
from tasks.errors import ConfigError, DataFault
from tasks.tokens import TextTokenizer


class TextCodec(TextTokenizer):
    """The tokenizer of a model that is asked something: how a question is put, and what ends an answer."""

    def chat_prompt(self, messages: Sequence[Mapping[str, str]]) -> list[int]:
        """A conversation that ends with the user, as the chat template renders it, and the header of the answer.

        Raises:
            ConfigError: the last message is not the user's.
            ValueError: the chat template knows no such order of roles.
        """
        if not messages or messages[-1]["role"] != "user":
            raise ConfigError(
                f"roles={[message['role'] for message in messages]}: an answer follows a message of the user. "
                "End the conversation with role user."
            )
        return self.chat(messages, asks=True)[0]

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """What ends an answer: the end of text, the end of a turn, and what generation_config.json names."""
        turn = [] if self.chat_template is None else [self.end_of_turn_id]
        stops = [self.eos_id, *turn, *_as_list(self._file("generation_config.json").get("eos_token_id"))]
        return tuple(dict.fromkeys(int(stop) for stop in stops))

    def _file(self, name: str) -> dict[str, Any]:
        path = self.path / name
        return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _as_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def read_config(directory: Path) -> dict[str, Any]:
    """The model's config.json."""
    return json.loads((directory / "config.json").read_text("utf-8"))


def model_directory(artifact: Artifact) -> Path:
    """The local Hugging Face directory of a train artifact (model/) or a release artifact (<ModelName>/).

    Raises:
        DataFault: the artifact holds no config.json one level down, or more than one.
    """
    found = [entry.path for entry in artifact.files() if PurePosixPath(entry.path).name == "config.json"]
    found = [path for path in found if len(PurePosixPath(path).parts) == 2]
    if len(found) != 1:
        raise DataFault(
            f"{artifact.url} has {found or 'no'} config.json one level down among "
            f"{[entry.path for entry in artifact.files()][:8]}: a model is a directory with config.json, weights and "
            "tokenizer. Name a train or release artifact, such as sft/tiny or release/tiny."
        )
    return artifact.local_dir(found[0].removesuffix("config.json"))
