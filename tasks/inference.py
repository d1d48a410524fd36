"""A Hugging Face directory, opened natively: its tokenizer, its chat template, and our decoder with its weights.

Shared by the stages that ask a trained model something (evaluation, the release proof, the terminal chat).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import tokenizers

from tasks.errors import DataFault

END_OF_TURN = "<end_of_turn>"


@dataclass(frozen=True)
class TextCodec:
    """Text to token ids and back, exactly as the directory's own tokenizer files say."""

    tokenizer: tokenizers.Tokenizer
    template: jinja2.Template | None
    special: Mapping[str, str]  # bos_token, eos_token, …
    bos_id: int
    eos_id: int
    pad_id: int
    stop_ids: tuple[int, ...]  # what ends an answer: the end of text, and the end of a turn where there is one

    def encode(self, text: str) -> list[int]:
        """Token ids of plain text, without BOS; markers in the text are read as text only if the tokenizer does so."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True)

    def chat_text(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> str:
        """A conversation as the template writes it, BOS included where the template has it.

        Raises:
            DataFault: the directory has no chat template, or the template refuses these messages.
        """
        if self.template is None:
            raise DataFault(
                "this model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): "
                "a conversation has no form without one. Use a model that came out of pack or sft."
            )
        try:
            return self.template.render(
                messages=list(messages), add_generation_prompt=add_generation_prompt, **self.special
            )
        except jinja2.TemplateError as error:
            raise DataFault(
                f"the chat template refuses these {len(messages)} messages "
                f"(roles {[message.get('role') for message in messages]}): {error}. "
                "A conversation must have the form that the model was trained on. Send user and assistant in turn."
            ) from error

    def chat(self, messages: Sequence[Mapping[str, str]], *, add_generation_prompt: bool = True) -> list[int]:
        """Token ids of a conversation, ready to be answered."""
        return self.encode(self.chat_text(messages, add_generation_prompt=add_generation_prompt))


def open_codec(directory: Path) -> TextCodec:
    """The tokenizer and the chat template of a Hugging Face directory.

    Raises:
        DataFault: tokenizer.json is missing, or there is no BOS or EOS token.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise DataFault(
            f"{directory} has no tokenizer.json but {sorted(p.name for p in directory.iterdir())[:8]}: a model is read "
            "together with the tokenizer it was trained with. Point to the model/ of a train or release artifact."
        )
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    settings = _json(directory / "tokenizer_config.json")
    special = {
        name: _content(value)
        for name, value in settings.items()
        if name.endswith("_token") and isinstance(value, (str, dict))
    }
    ids = {name: tokenizer.token_to_id(special.get(f"{name}_token", f"<{name}>")) for name in ("bos", "eos", "pad")}
    if ids["bos"] is None or ids["eos"] is None:
        raise DataFault(
            f"{directory}: bos_token {special.get('bos_token')!r} is id {ids['bos']} and eos_token "
            f"{special.get('eos_token')!r} is id {ids['eos']}: documents begin with BOS and end with EOS, so both must "
            "be in the vocabulary. Correct tokenizer_config.json."
        )
    end_of_turn = tokenizer.token_to_id(END_OF_TURN)
    stops = [ids["eos"], *_as_list(_json(directory / "generation_config.json").get("eos_token_id")), end_of_turn]
    return TextCodec(
        tokenizer=tokenizer,
        template=_template(directory, settings),
        special=special,
        bos_id=ids["bos"],
        eos_id=ids["eos"],
        pad_id=ids["eos"] if ids["pad"] is None else ids["pad"],
        stop_ids=tuple(dict.fromkeys(int(stop) for stop in stops if stop is not None)),
    )


def _template(directory: Path, settings: Mapping[str, Any]) -> jinja2.Template | None:
    path = directory / "chat_template.jinja"
    text = path.read_text("utf-8") if path.is_file() else settings.get("chat_template")
    if not isinstance(text, str):
        return None
    # Sandboxed and with trimmed blocks, as transformers renders it: a template is data from whoever made the model.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _refuse
    return environment.from_string(text)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _content(value: str | Mapping[str, Any]) -> str:
    return value if isinstance(value, str) else str(value["content"])


def _as_list(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]
