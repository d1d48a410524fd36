"""Text to token ids, one way for every stage: documents and conversations can never smuggle in a control token.

The truth is the directory's `tokenizer.json`. A text that spells `<eos>` becomes ordinary pieces; control ids come only
from the functions here.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model.families import gemma2
from tasks.errors import ConfigError

FILES = ("tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")


class TextTokenizer:
    """The tokenizer in a directory. It pickles as the path and loads on first use, so workers may have it."""

    def __init__(self, path: Path | str):
        self.path = Path(path)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise ConfigError(
                f"{self.path} holds no tokenizer.json: it is what turns text into ids in every stage. "
                "Give the artifact of a tokenizer step (pack/tiny:tokenizer) or a Hugging Face directory."
            )
        tokenizer = Tokenizer.from_file(str(file))
        tokenizer.encode_special_tokens = True
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _config(self) -> dict[str, Any]:
        file = self.path / "tokenizer_config.json"
        return json.loads(file.read_text()) if file.is_file() else {}

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    @cached_property
    def pad_id(self) -> int:
        """Fills the end of a row; never a target."""
        return self._special("pad_token")

    @cached_property
    def bos_id(self) -> int:
        """Begins every document and conversation."""
        return self._special("bos_token")

    @cached_property
    def eos_id(self) -> int:
        """Ends every document."""
        return self._special("eos_token")

    @cached_property
    def end_of_turn_id(self) -> int:
        """Ends every turn of a conversation; a chat model learns to say it."""
        return self._id(gemma2.END_OF_TURN)

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone: no control token is added, and none is read out of the text."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def document(self, text: str) -> list[int]:
        """A document as it is trained on: bos, text, eos."""
        return [self.bos_id, *self.encode(text), self.eos_id]

    def chat(self, messages: Sequence[Mapping[str, str]]) -> tuple[list[int], list[int]]:
        """A conversation as the chat template renders it, and for each token the turn it may teach.

        The second list holds k at the tokens of the k-th assistant turn, counted from 1 (its text and its
        <end_of_turn>), and 0 elsewhere: role headers, user turns, and the newline between turns are given, not learnt.

        Raises:
            ValueError: the roles do not alternate user, assistant, …
        """
        ids, turns = [self.bos_id], [0]
        newline = self.encode("\n")
        start, end = self._id(gemma2.START_OF_TURN), self.end_of_turn_id
        for index, message in enumerate(messages):
            if message["role"] != ("user", "assistant")[index % 2]:
                raise ValueError(
                    f"roles={[m['role'] for m in messages]} do not alternate user, assistant, …: the chat template "
                    "knows no other order. Put instructions for the system into the first user turn."
                )
            header = gemma2.ROLES[message["role"]] + "\n"
            piece = self._tokenizer.encode(header + message["content"].strip(), add_special_tokens=False)
            turn = index // 2 + 1 if message["role"] == "assistant" else 0
            ids += [start, *piece.ids, end, *newline]
            turns += [
                0,
                *(turn if begin >= len(header) else 0 for begin, _ in piece.offsets),
                turn,
                *([0] * len(newline)),
            ]
        return ids, turns

    def _special(self, name: str) -> int:
        value = self._config.get(name)
        text = value["content"] if isinstance(value, dict) else value
        if text is None:
            raise ConfigError(
                f"{self.path}/tokenizer_config.json names no {name}: training needs one to mark where texts begin, "
                "end or are filled up. Add it to the file, or use a tokenizer made by pack."
            )
        return self._id(text)

    def _id(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise ConfigError(
                f"{self.path}/tokenizer.json has no token {token!r}: without it text cannot be marked up as the model "
                "expects. Use a tokenizer made by pack, or one of the Gemma family."
            )
        return found
