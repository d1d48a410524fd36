"""Text to token ids, one way for every stage: documents and conversations can never smuggle in a control token.

The truth is the directory's `tokenizer.json`. A text that spells `<eos>` becomes ordinary pieces; control ids come only
from the functions here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib import import_module
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tokenizers import Tokenizer

from tasks.errors import ConfigError
from tasks.turns import ChatTemplate, Piece

Engine = Literal["tokenizers", "fastokens"]
TOKENIZER_FILES = (  # beside a model, whichever of them it has
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def tokenizer_prefix(paths: Iterable[str]) -> str:
    """Where among an artifact's files its tokenizer is: "" for a tokenizer alone, "model/" for that of a model.

    Raises:
        ConfigError: there is none.
    """
    known = set(paths)
    found = next((prefix for prefix in ("", "model/") if f"{prefix}tokenizer.json" in known), None)
    if found is None:
        raise ConfigError(
            "the artifact given as tokenizer holds no tokenizer.json, alone or beside a model: nothing else says what "
            "ids a text has. Give a tokenizer (pack/tiny:tokenizer) or the model whose tokenizer it shall be."
        )
    return found


class TextTokenizer:
    """The tokenizer in a directory. It pickles as the path and loads on first use, so workers may have it.

    `engine` turns documents into ids, and documents only; `tokenizers` is the truth that another one must agree with.
    """

    def __init__(self, path: Path | str, engine: Engine = "tokenizers"):
        self.path, self.engine = Path(path), engine

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "engine": self.engine}

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        file = self.path / "tokenizer.json"
        if not file.is_file():
            raise ConfigError(
                f"{self.path} holds no tokenizer.json: it is what turns text into ids in every stage. "
                "Give the artifact of a tokenizer step (pack/tiny:tokenizer) or a Hugging Face directory."
            )
        return _for_texts(Tokenizer.from_file(str(file)))

    @cached_property
    def _fastokens(self) -> Any:
        if self.engine == "tokenizers":
            return None
        try:
            fastokens = import_module("fastokens")
        except ModuleNotFoundError as error:
            if error.name != "fastokens":
                raise  # it is there but broken: hide nothing
            raise ConfigError(
                "engine='fastokens' needs fastokens, which is not installed: it is no part of the plain environment. "
                "Install it with pip install -e '.[fast]', or use engine='tokenizers'."
            ) from error
        tokenizer = fastokens.Tokenizer.from_file(str(self.path / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _inner_tokenizer(self) -> Tokenizer:
        """For text after a control token: some tokenizers put a space before the first word of a whole text only."""
        said = json.loads(self._tokenizer.to_str())
        splitter = said["pre_tokenizer"] or {}
        firsts = [one for one in splitter.get("pretokenizers", [splitter]) if one.get("prepend_scheme") == "first"]
        for one in firsts:
            one["prepend_scheme"] = "never"
        return _for_texts(Tokenizer.from_str(json.dumps(said))) if firsts else self._tokenizer

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
        """Ends every answer of a conversation; a chat model learns to say it."""
        pieces = self._template.pieces(("user", "assistant"))
        ends = [piece.text for piece in pieces if piece.kind == "control" and piece.turn]
        if not ends:
            raise ConfigError(
                f"{self.path}: the chat template ends an answer with no control token: a model could not say that it "
                "is done. Use a template that writes one after the assistant's words."
            )
        return self._id(ends[0])

    @cached_property
    def chat_template(self) -> str | None:
        """What comes with the tokenizer, else that of the family whose tokens it has, else None."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text("utf-8")
        own = self._config.get("chat_template")
        if isinstance(own, list):  # several by name
            own = next((one["template"] for one in own if one["name"] == "default"), None)
        from model.families.chat import chat_of  # brings JAX, which a worker of the feed can do without

        known = chat_of(self._tokenizer.get_vocab(with_added_tokens=True))
        return own or (known and known.template)

    def encode(self, text: str) -> list[int]:
        """Ids of a text alone: no control token is added, and none is read out of the text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts at once."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids."""
        return self._tokenizer.decode(list(ids), skip_special_tokens=skip_special)

    def document(self, text: str) -> np.ndarray:
        """A document as it is trained on: bos, text, eos; int32."""
        if self._fastokens is None:
            return np.array([self.bos_id, *self.encode(text), self.eos_id], np.int32)
        ids = np.frombuffer(self._fastokens.encode_batch_flat([text], split_special_tokens=True)[0], np.uint32)
        whole = np.empty(len(ids) + 2, np.int32)
        whole[0], whole[1:-1], whole[-1] = self.bos_id, ids, self.eos_id
        return whole

    def spelt_control_tokens(self) -> str:
        """A text of all added tokens and words between them: whoever reads one as a control id has let it in."""
        return " words ".join(token.content for token in self._tokenizer.get_added_tokens_decoder().values())

    def chat(self, messages: Sequence[Mapping[str, str]], *, asks: bool = False) -> tuple[list[int], list[int]]:
        """A conversation as the chat template renders it, and for each token the turn it may teach.

        The second list holds k at the tokens of the k-th assistant turn, counted from 1 (what the model says itself, up
        to and with the token that ends it), and 0 elsewhere: role headers, other turns, and what stands between turns
        are given, not learnt. With `asks` the header of an answer follows.

        Raises:
            ValueError: the template knows no such order of roles.
        """
        contents = [_checked(message["content"]) for message in messages]
        ids: list[int] = []
        turns: list[int] = []
        pieces = self._template.pieces([message["role"] for message in messages], asks=asks)
        for is_control, run in groupby(pieces, lambda piece: piece.kind == "control"):
            if is_control:
                for piece in run:
                    ids.append(self._id(piece.text))
                    turns.append(piece.turn)
            else:
                self._append_text(list(run), contents, ids, turns)
        return ids, turns

    def _append_text(self, run: list[Piece], contents: list[str], ids: list[int], turns: list[int]) -> None:
        """What stands between two control tokens is one text; a token is of the piece that it begins in."""
        texts = [piece.filled(contents) for piece in run]
        starts = [0, *accumulate(map(len, texts))][:-1]
        tokenizer = self._inner_tokenizer if ids else self._tokenizer
        text = "".join(texts)
        if len({piece.turn for piece in run}) == 1:
            own = tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids
            ids += own
            turns += [run[0].turn] * len(own)
            return
        encoding = tokenizer.encode(text, add_special_tokens=False)  # with the place of each token, which costs
        begins = np.array([begin for begin, _ in encoding.offsets], np.int64)
        of_piece = np.searchsorted(starts, begins, side="right") - 1
        ids += encoding.ids
        turns += np.array([piece.turn for piece in run])[of_piece].tolist()

    @cached_property
    def _template(self) -> ChatTemplate:
        if self.chat_template is None:
            raise ConfigError(
                f"{self.path} has no chat template and the turn tokens of no known family: a conversation must be "
                "marked up as the model expects. Add chat_template.jinja, or use an instruction model's tokenizer."
            )
        marks = {name: self._text_of(value) for name, value in self._config.items() if name.endswith("_token")}
        special = [token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special]
        return ChatTemplate(self.chat_template, {name: text for name, text in marks.items() if text}, special)

    @staticmethod
    def _text_of(value: Any) -> str | None:
        return value["content"] if isinstance(value, dict) else value if isinstance(value, str) else None

    def _special(self, name: str) -> int:
        text = self._text_of(self._config.get(name))
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


def _checked(content: Any) -> str:
    if not isinstance(content, str):
        raise TypeError(f"content={content!r} is no text: a message has one. Leave out other kinds of content.")
    return content


def _for_texts(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer
