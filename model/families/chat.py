"""How the instruction models of each family are talked to: for tokenizers that bring no chat template of their own.

A published instruction model brings its template, and that one is used. Base models mostly bring none; they get the
template of the instruction models that were made of them. Sources: the published tokenizer_config.json files.
"""

from collections.abc import Collection
from dataclasses import dataclass

from model.families import gemma2


@dataclass(frozen=True)
class Chat:
    """A chat template, and the tokens by which one knows the tokenizers it was made for."""

    tokens: tuple[str, ...]
    template: str


GEMMA2 = Chat((gemma2.START_OF_TURN, gemma2.END_OF_TURN), gemma2.CHAT_TEMPLATE)

# Like Gemma 2, but what the system says begins the first turn of the user.
GEMMA3 = Chat(
    (gemma2.START_OF_TURN, gemma2.END_OF_TURN, "<start_of_image>"),
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for message in turns %}"
    "{% if message['role'] not in ('user', 'assistant') or (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Roles must be user, assistant, user, ... after at most one of system') }}{% endif %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else 'user') + '\n'"
    " + (first if loop.first else '') + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
)

LLAMA3 = Chat(
    ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
)

# ChatML, with the words that SmolLM2 was taught under when there is no message of the system.
SMOLLM2 = Chat(
    ("<|im_start|>", "<|im_end|>"),
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
)

CHATS = (GEMMA2, GEMMA3, LLAMA3, SMOLLM2)


def chat_of(vocabulary: Collection[str]) -> Chat | None:
    """The one whose tokens are all there; of several that with the most."""
    fitting = [chat for chat in CHATS if all(token in vocabulary for token in chat.tokens)]
    return max(fitting, key=lambda chat: len(chat.tokens), default=None)
