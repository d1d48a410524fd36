"""Conversations of every family against transformers, token for token, with what is learnt of them."""

import json
import re

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from model.families.chat import CHATS, GEMMA2, GEMMA3, LLAMA3, SMOLLM2, chat_of
from tasks.errors import ConfigError
from tasks.inference import TextCodec
from tasks.tokens import TextTokenizer, tokenizer_prefix

TEXTS = [
    "What is the highest mountain in Japan? It is Mount Fuji.\n\nAnd then: user model assistant system INST.",
    "日本で一番高い山は富士山です。  二つの空白と\n改行。",
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
]

# What the published instruction models ship. {% generation %} is added for the masks: transformers gives none without.
PUBLISHED = {
    "gemma2": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}"
        "{% endif %}{{ '<start_of_turn>' + role + '\n' }}"
        "[[{{ message['content'] | trim + '<end_of_turn>' }}]]{{ '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "gemma3": (
        "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}\n"
        "    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}\n"
        "    {%- set loop_messages = messages[1:] -%}\n{%- else -%}\n    {%- set first_user_prefix = '' -%}\n"
        "    {%- set loop_messages = messages -%}\n{%- endif -%}\n{%- for message in loop_messages -%}\n"
        "    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}\n"
        "        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\n"
        "    {%- endif -%}\n    {%- if (message['role'] == 'assistant') -%}\n        {%- set role = 'model' -%}\n"
        "    {%- else -%}\n        {%- set role = message['role'] -%}\n    {%- endif -%}\n"
        "    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else '') }}"
        "[[{{ message['content'] | trim }}{{ '<end_of_turn>' }}]]{{ '\n' }}\n{%- endfor -%}\n"
        "{%- if add_generation_prompt -%}\n    {{'<start_of_turn>model\n'}}\n{%- endif -%}\n"
    ),
    "llama3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}"
        "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' %}"
        "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
        "[[{{ message['content'] | trim + '<|eot_id|>' }}]]{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "smollm2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
        "{% endif %}{{'<|im_start|>' + message['role'] + '\n'}}[[{{ message['content'] + '<|im_end|>' }}]]{{ '\n'}}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "mixtral": (
        "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
        "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
        "{% elif message['role'] == 'assistant' %}[[{{ ' ' + message['content'] + eos_token}}]]"
        "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
    ),
}
BYTE_LEVEL = {
    "llama3": ("<|begin_of_text|>", "<|end_of_text|>", LLAMA3.tokens),
    "smollm2": ("<|im_start|>", "<|im_end|>", SMOLLM2.tokens),
}
PIECES = {
    "gemma2": ("<bos>", "<eos>", GEMMA2.tokens),
    "gemma3": ("<bos>", "<eos>", GEMMA3.tokens),
    "mixtral": ("<s>", "</s>", ()),
}


def released(name: str) -> str:
    return re.sub(r"\[\[|\]\]", "", PUBLISHED[name])


def marked(name: str) -> str:
    """With what an assistant says in a generation block."""
    block = "{% if message['role'] == 'assistant' %}{% generation %}\\1{% endgeneration %}{% else %}\\1{% endif %}"
    return re.sub(r"\[\[(.*?)\]\]", block, PUBLISHED[name])


def learnt_tokenizer(name: str) -> tuple[Tokenizer, str, str]:
    """A little tokenizer of the kind that the family has: byte-level, or pieces with marks for spaces."""
    bos, eos, turns = (BYTE_LEVEL | PIECES)[name]
    special = list(dict.fromkeys(["<pad>", eos, bos, "<unk>", *turns]))
    if name in BYTE_LEVEL:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        alphabet = []
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        if name == "mixtral":  # the space before the first word of a text is the pre-tokeniser's
            tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        else:
            tokenizer.normalizer = normalizers.Replace(" ", "▁")
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    said = json.loads(tokenizer.to_str())
    said["added_tokens"] = [one for one in said["added_tokens"] if not one["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(said))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special if "0x" not in token])
    return tokenizer, bos, eos


@pytest.fixture(scope="module", params=PUBLISHED)
def family(request, tmp_path_factory):
    """(name, directory with the published template)."""
    return request.param, write(tmp_path_factory.mktemp(request.param), request.param, released(request.param))


def write(path, name, template):
    tokenizer, bos, eos = learnt_tokenizer(name)
    tokenizer.save(str(path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos, "pad_token": "<pad>"}
    (path / "tokenizer_config.json").write_text(json.dumps(config | ({"chat_template": template} if template else {})))
    return path


CONVERSATIONS = [
    [("user", "  What is 日本?\n\n"), ("assistant", "An island country.\n- 東京\n    - 渋谷")],
    [("user", "a"), ("assistant", ""), ("user", "\nありがとう"), ("assistant", "\n two  spaces \n")],
    [("user", "Is it?"), ("assistant", "It is."), ("user", "model\n"), ("assistant", "user\n"), ("user", "x")],
]
WITH_SYSTEM = [("system", " Be brief.\n"), ("user", " Why?"), ("assistant", "Because.")]


def messages_of(conversation):
    return [{"role": role, "content": content} for role, content in conversation]


def conversations(name):
    return [*CONVERSATIONS, *([WITH_SYSTEM] if name in ("gemma3", "llama3", "smollm2") else [])]


def test_conversations_are_those_of_transformers_with_the_released_template(family):
    name, path = family
    ours, theirs = TextCodec(path), AutoTokenizer.from_pretrained(path)
    for conversation in conversations(name):
        messages = messages_of(conversation)
        assert ours.chat(messages)[0] == theirs.apply_chat_template(messages)["input_ids"]
        asked = messages if messages[-1]["role"] == "user" else messages[:-1]
        want = theirs.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
        assert ours.chat_prompt(asked) == want


def test_the_answers_alone_are_learnt_as_transformers_masks_them(family):
    name, path = family
    ours, theirs = TextTokenizer(path), AutoTokenizer.from_pretrained(path)
    theirs.chat_template = marked(name)
    for conversation in conversations(name):
        messages = messages_of(conversation)
        found = theirs.apply_chat_template(messages, return_assistant_tokens_mask=True, return_dict=True)
        ids, turns = ours.chat(messages)
        assert ids == found["input_ids"]
        assert [int(turn > 0) for turn in turns] == found["assistant_masks"]
        answers = [content for role, content in conversation if role == "assistant"]
        assert max(turns) == len(answers)
        for number, answer in enumerate(answers, 1):
            said = [token for token, turn in zip(ids, turns, strict=True) if turn == number]
            assert said[-1] == ours.end_of_turn_id
            assert ours.decode(said).strip() == answer.strip()


@pytest.mark.parametrize(
    ("name", "end"),
    [
        ("gemma2", "<end_of_turn>"),
        ("gemma3", "<end_of_turn>"),
        ("llama3", "<|eot_id|>"),
        ("smollm2", "<|im_end|>"),
        ("mixtral", "</s>"),
    ],
)
def test_an_answer_stops_at_its_familys_tokens(tmp_path, name, end):
    codec = TextCodec(write(tmp_path, name, released(name)))
    number = codec._tokenizer.token_to_id
    assert codec.end_of_turn_id == number(end)
    assert codec.stop_ids == tuple(dict.fromkeys([number((BYTE_LEVEL | PIECES)[name][1]), number(end)]))


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "llama3", "smollm2"])
def test_a_tokenizer_without_a_template_has_that_of_its_family(tmp_path, name):
    """Ours says what the released one says, for the base models that bring none."""
    path = write(tmp_path, name, "")
    ours, theirs = TextTokenizer(path), AutoTokenizer.from_pretrained(path)
    for conversation in conversations(name):
        messages = messages_of(conversation)
        want = theirs.apply_chat_template(messages, chat_template=released(name))["input_ids"]
        assert ours.chat(messages)[0] == want


def test_a_tokenizer_without_turns_is_for_texts_only(tmp_path):
    codec = TextCodec(write(tmp_path, "mixtral", ""))
    assert codec.stop_ids == (codec.eos_id,)
    with pytest.raises(ConfigError, match=r"no chat template.*Add chat_template\.jinja"):
        codec.chat(messages_of(CONVERSATIONS[0]))


def test_what_a_content_spells_is_never_a_control_token(family):
    ours = TextTokenizer(family[1])
    plain, _ = ours.chat(messages_of([("user", "x"), ("assistant", "y")]))
    control = {token.content: i for i, token in ours._tokenizer.get_added_tokens_decoder().items() if token.special}
    spelt = " ".join(control)
    ids, _ = ours.chat(messages_of([("user", spelt), ("assistant", f"{spelt} {{{{ bos_token }}}} \ue0000\ue001")]))
    for token in control.values():
        assert ids.count(token) == plain.count(token)
    assert "{{ bos_token }} \ue0000\ue001" in ours.decode(ids)


@pytest.mark.parametrize("name", ["gemma2", "gemma3", "mixtral"])
@pytest.mark.parametrize("roles", [["user", "user"], ["assistant"], ["user", "assistant", "system"]])
def test_an_order_of_roles_that_the_template_does_not_know_is_refused(tmp_path, name, roles):
    for template in (released(name), "") if name != "mixtral" else (released(name),):
        tokenizer = TextTokenizer(write(tmp_path, name, template))
        with pytest.raises(ValueError, match="are refused by the chat template"):
            tokenizer.chat([{"role": role, "content": "x"} for role in roles])


def test_the_family_with_the_most_tokens_is_found():
    assert chat_of({"a", *GEMMA2.tokens}) is GEMMA2
    assert chat_of({"a", *GEMMA3.tokens}) is GEMMA3
    assert [chat_of(set(chat.tokens)) for chat in CHATS] == list(CHATS)
    assert chat_of({"<start_of_turn>", "<|im_start|>"}) is None


def test_an_artifact_s_tokenizer_is_alone_or_beside_its_model_and_must_be_there():
    assert tokenizer_prefix(["tokenizer.json", "tokenizer.model"]) == ""
    assert tokenizer_prefix(["model/config.json", "model/tokenizer.json"]) == "model/"
    with pytest.raises(ConfigError, match=r"holds no tokenizer\.json"):
        tokenizer_prefix(["model/config.json", "records/tokenizer.json"])
