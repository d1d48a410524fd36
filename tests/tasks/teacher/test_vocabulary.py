"""Tokenizers from GGUF metadata give the ids of the libraries that made the vocabularies."""

import io
import json
from typing import Any

import pytest
import sentencepiece as spm
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.teacher.vocabulary import merges_from_scores, tokenizer_files

CORPUS = [
    "The mail server keeps every message until it is read. 12 messages, 345 bytes.",
    "メールサーバーは、メッセージが読まれるまで保管します。設定は文書と一緒に保存されます。",
    "def read(path):\n    with open(path) as file:\n        return file.read()\n\n\n\tx = 1",
] * 20
TEXTS = [*CORPUS[:3], "", " ", "   two  spaces ", "\n\n\t x", "日本語とEnglish mixed 😀", "<end_of_turn>", "\u3000全角"]


@pytest.fixture(scope="module")
def sentencepiece() -> spm.SentencePieceProcessor:
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=480,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        bos_piece="<bos>",
        eos_piece="<eos>",
        pad_piece="<pad>",
        user_defined_symbols=["<start_of_turn>", "<end_of_turn>"],
        minloglevel=2,
    )
    return spm.SentencePieceProcessor(model_proto=model.getvalue())


def gguf_metadata(sp: spm.SentencePieceProcessor) -> dict[str, Any]:
    """What a GGUF file of this vocabulary would hold."""
    ids = range(sp.vocab_size())
    names = {"unknown": 2, "control": 3, "user": 4, "byte": 6}
    kinds = {
        i: names["unknown"]
        if sp.is_unknown(i)
        else names["control"]
        if sp.is_control(i)
        else names["byte"]
        if sp.is_byte(i)
        else names["user"]
        if sp.id_to_piece(i).startswith("<start_of") or sp.id_to_piece(i).startswith("<end_of")
        else 1
        for i in ids
    }
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [sp.id_to_piece(i) for i in ids],
        "tokenizer.ggml.scores": [sp.get_score(i) for i in ids],
        "tokenizer.ggml.token_type": [kinds[i] for i in ids],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
    }


@pytest.fixture(scope="module")
def from_gguf(sentencepiece) -> Tokenizer:
    files = tokenizer_files(gguf_metadata(sentencepiece))
    assert files["tokenizer_config.json"]["bos_token"] == "<bos>"
    return Tokenizer.from_str(json.dumps(files["tokenizer.json"]))


def test_a_sentencepiece_vocabulary_gives_sentencepieces_ids(sentencepiece, from_gguf):
    for text in TEXTS:
        assert from_gguf.encode(text, add_special_tokens=False).ids == sentencepiece.encode(text)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.sampled_from(list("mail server読む設定  \n\t0123é😀")), max_size=40))
def test_ids_are_equal_on_any_text_and_decode_back(sentencepiece, from_gguf, text):
    ids = from_gguf.encode(text, add_special_tokens=False).ids
    assert ids == sentencepiece.encode(text)
    assert from_gguf.decode(ids) == text


def test_a_bos_token_is_put_first_when_the_file_says_so(from_gguf):
    assert from_gguf.encode("mail").ids[0] == 2
    assert from_gguf.encode("mail", add_special_tokens=False).ids[0] != 2


def test_a_byte_level_vocabulary_gives_its_makers_ids():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    made.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    model = json.loads(made.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    files = tokenizer_files(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [3 if token in special else 1 for token in tokens],
            "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.chat_template": "template",
        }
    )
    again = Tokenizer.from_str(json.dumps(files["tokenizer.json"]))
    for text in [*TEXTS, "<|im_start|>user\nhi<|im_end|>"]:
        assert again.encode(text).ids == made.encode(text).ids
        assert again.decode(again.encode(text).ids, skip_special_tokens=False) == text
    assert files["tokenizer_config.json"]["chat_template"] == "template"
    assert files["tokenizer_config.json"]["eos_token"] == "<|im_end|>"


def test_runs_of_spaces_merge_first_and_the_longest_left_part_first():
    tokens = ["▁", "▁▁", "▁▁▁", "a", "▁a", "▁▁a"]
    types = [1, 4, 4, 1, 1, 1]
    scores = [-1.0, -1000.0, -1000.0, -2.0, -3.0, -4.0]
    merges = merges_from_scores(tokens, scores, types)
    assert merges == [["▁▁", "▁"], ["▁", "▁▁"], ["▁", "▁"], ["▁", "a"], ["▁▁", "a"], ["▁", "▁a"]]


def test_an_unknown_kind_of_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"vocabulary kind gpt2/qwen2 is not one of"):
        tokenizer_files({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"})
