"""`nestling chat ARTIFACT`: talk to a trained or released model in the terminal, on our own decoder."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TextIO

from model.convert import load_hf
from model.decoder import Decoder
from model.generate import generate
from tasks.artifact import Artifact
from tasks.inference import TextCodec, model_directory

MAX_NEW_TOKENS = 128
TEMPERATURE = 0.7  # greedy answers of a small model run in circles
HELP = "A line is a message. /new starts again, /quit (or the end of input) leaves."


@dataclass
class Conversation:
    """What was said. The oldest turns are forgotten when the model's context is full."""

    model: Decoder
    codec: TextCodec
    max_new_tokens: int
    messages: list[dict[str, str]] = field(default_factory=list)

    def say(self, text: str) -> str:
        """The model's answer to a message; the same conversation gives the same answer."""
        self.messages.append({"role": "user", "content": text})
        prompt = self._prompt()
        if prompt is None:
            self.messages.clear()
            return (
                f"[that is longer than the {self.model.cfg.max_seq_len} tokens this model can read; nothing was kept]"
            )
        (ids,) = generate(
            self.model,
            [prompt],
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.codec.stop_ids,
            temperature=TEMPERATURE,
            batch_size=1,
        )
        answer = self.codec.decode(ids).strip()
        self.messages.append({"role": "assistant", "content": answer})
        return answer

    def _prompt(self) -> list[int] | None:
        while self.messages:
            prompt = self.codec.chat_prompt(self.messages)
            if len(prompt) + self.max_new_tokens <= self.model.cfg.max_seq_len:
                return prompt
            del self.messages[:2]
        return None


def chat(artifact: Artifact) -> int:
    """Read messages line by line from stdin until its end; answers go to stdout. Works with a pipe as well."""
    source, target = sys.stdin, sys.stdout
    directory = model_directory(artifact)
    model = load_hf(directory)
    room = min(MAX_NEW_TOKENS, model.cfg.max_seq_len // 2)
    conversation = Conversation(model, TextCodec(directory), room)
    talks = source.isatty()
    if talks:
        target.write(f"{artifact.manifest.stage}/{artifact.manifest.name}. {HELP}\n")
    for line in _lines(source, target, "> " if talks else ""):
        if line in ("/quit", "/exit"):
            break
        if line == "/new":
            conversation.messages.clear()
        elif line:
            target.write(f"{conversation.say(line)}\n")
            target.flush()
    return 0


def _lines(source: TextIO, target: TextIO, mark: str) -> Iterator[str]:
    while True:
        target.write(mark)
        target.flush()
        line = source.readline()
        if not line:
            return
        yield line.strip()
