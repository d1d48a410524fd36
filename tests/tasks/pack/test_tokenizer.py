"""The tokenizer's two files against each other, and against transformers in both environments."""

import json
import subprocess
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.artifact import produce
from tasks.errors import ConfigError, DataFault
from tasks.pack import tokenizer
from tasks.pack.config import TokenizerConfig
from tasks.pack.tokenizer import TOKENIZER
from tasks.tokens import TextTokenizer
from tests.tasks.training_data import document, make_artifact

ROOT = Path(__file__).resolve().parents[3]
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
TRICKY = [*"ab-=ーあいの \n\t1\r\0🎉龘▁é<>/#*\u3000\u0301", "return", "    ", "です", "<eos>", "ーー", "----"]


@pytest.fixture(scope="module")
def pair(real_model):
    fast = Tokenizer.from_str(tokenizer.to_tokenizer_json(real_model))
    fast.encode_special_tokens = True
    return sentencepiece.SentencePieceProcessor(model_proto=real_model), fast


def test_real_text_has_the_same_ids_in_both_files_and_comes_back(pair, real_texts):
    pieces, fast = pair
    for text in real_texts:
        ids = fast.encode(text, add_special_tokens=False).ids
        assert ids == pieces.encode(text)
        assert fast.decode(ids, skip_special_tokens=False) == text


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TRICKY), max_size=40).map("".join))
@example(" " * 37 + "x" + "\n" * 11 + "\t" * 9)
@example("ーーーーーーー" + "-" * 23)
def test_runs_and_odd_characters_have_the_same_ids_in_both_files(pair, text):
    pieces, fast = pair
    assert fast.encode(text, add_special_tokens=False).ids == pieces.encode(text)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text_has_the_same_ids_in_both_files_and_comes_back(pair, text):
    if tokenizer.START_OF_TURN in text or tokenizer.END_OF_TURN in text:
        return
    pieces, fast = pair
    ids = fast.encode(text, add_special_tokens=False).ids
    assert ids == pieces.encode(text)
    assert fast.decode(ids, skip_special_tokens=False) == text.replace("▁", " ")


def test_settings_are_those_of_gemma(pair):
    pieces, fast = pair
    assert [pieces.id_to_piece(i) for i in range(6)] == [
        "<pad>",
        "<eos>",
        "<bos>",
        "<unk>",
        "<start_of_turn>",
        "<end_of_turn>",
    ]
    assert pieces.vocab_size() == fast.get_vocab_size() == 4096
    assert pieces.encode("12345", out_type=str) == list("12345"), "digits stand alone"
    assert pieces.encode("the", out_type=str)[0][0] != "▁", "no dummy prefix"
    assert len(pieces.encode("龘")) == 3, "an unknown character is its three bytes"
    assert pieces.decode(pieces.encode("ｱﾞ㍿ﬁ")) == "ｱﾞ㍿ﬁ", "no normalisation"


def test_spelling_a_control_token_does_not_make_one(real_dir):
    ours = TextTokenizer(real_dir)
    for token in ("<eos>", "<bos>", "<pad>", "<start_of_turn>", "<end_of_turn>"):
        assert min(ours.encode(f"a{token}b")) > 5


def test_chat_is_what_the_template_renders(real_dir):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(real_dir)
    ours = TextTokenizer(real_dir)
    messages = [
        {"role": "user", "content": "  What is 日本?\n\n"},
        {"role": "assistant", "content": "An island country.\n- 東京\n    - 渋谷"},
        {"role": "user", "content": "ありがとう"},
        {"role": "assistant", "content": ""},
    ]
    ids, turns = ours.chat(messages)
    assert ids == theirs.apply_chat_template(messages)["input_ids"]
    learnt = [theirs.decode([i for i, turn in zip(ids, turns, strict=True) if turn == k]) for k in (1, 2)]
    assert learnt == ["An island country.\n- 東京\n    - 渋谷<end_of_turn>", "<end_of_turn>"]


LOAD = """
import sys, json
from transformers import AutoTokenizer
t = AutoTokenizer.from_pretrained(sys.argv[1])
texts = json.load(sys.stdin)
print(json.dumps({"len": len(t), "ids": t(texts).input_ids, "special": [t.pad_token_id, t.eos_token_id, t.bos_token_id,
      t.unk_token_id], "chat": t.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False,
      add_generation_prompt=True), "back": t.decode(t(texts[0]).input_ids, skip_special_tokens=True)}))
"""


@pytest.mark.parametrize("python", [ROOT / ".venv/bin/python", pytest.param(VLLM_PYTHON, marks=pytest.mark.vllm)])
def test_transformers_loads_it_in_both_environments(real_dir, pair, python):
    if not python.exists():
        pytest.skip(f"{python} is not there")
    texts = ["a  b\n\n\nこんにちは 123 🎉", "def f(x):\n        return x"]
    done = subprocess.run(
        [python, "-c", LOAD, real_dir], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["ids"] == [[2, *pair[0].encode(text)] for text in texts]
    assert (found["len"], found["special"], found["back"]) == (4096, [0, 1, 2, 3], texts[0])
    assert found["chat"] == "<bos><start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n"


def test_stage_makes_the_same_bytes_twice_and_never_reads_the_held_out_part(tmp_path, real_texts):
    config = TokenizerConfig(vocab_size=1200, sample_bytes=200_000, character_coverage=0.98)
    files = {"train/00000.parquet": [document(text) for text in real_texts]}
    secret = {"heldout/00000.parquet": [document("ゐゑヰヱ" * 5000)]}
    first = make_artifact(tmp_path / "a", "x", files)
    second = make_artifact(tmp_path / "b", "x", files | secret)
    made = [
        produce(str(tmp_path / "out" / n), TOKENIZER, "t", config, {"documents.0": a})
        for n, a in (("1", first), ("2", second))
    ]
    assert made[0].manifest.content_digest == made[1].manifest.content_digest
    assert [entry.path for entry in made[0].files()] == [
        "chat_template.jinja",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    ]


def test_sample_is_fair_and_just_fills_its_bytes(tmp_path):
    rows = [document(f"{i:04d}" * 25) for i in range(200)]
    artifact = make_artifact(tmp_path, "x", {"train/00000.parquet": rows[:50], "train/00001.parquet": rows[50:]})
    texts = tokenizer.sample(artifact, 1001)
    assert len(texts) == 11, "10 texts are 1,000 bytes, one less than asked"
    assert set(tokenizer.sample(artifact, 500)) < set(texts), "a smaller sample is part of a larger one"
    assert len(tokenizer.sample(artifact, 10**6)) == 200


@pytest.mark.parametrize(
    ("vocab_size", "error"),
    [
        pytest.param(8000, DataFault, id="more ids than the text has pieces"),
        pytest.param(300, ConfigError, id="fewer ids than characters and bytes"),
    ],
)
def test_impossible_vocabulary_is_explained(vocab_size, error):
    lines = ["".join(chr(0x4E00 + i) for i in range(100)), "words and more words"]
    with pytest.raises(error, match=f"vocab_size={vocab_size:,}"):
        tokenizer.learn(lines, vocab_size=vocab_size, character_coverage=1.0)


def test_a_difference_between_the_files_is_found(real_model):
    other = json.loads(tokenizer.to_tokenizer_json(real_model))
    lost = "".join(other["model"]["merges"][20])
    other["model"]["merges"] = [merge for merge in other["model"]["merges"] if "".join(merge) != lost]
    with pytest.raises(DataFault, match=r"tokenizer\.model gives"):
        tokenizer.require_equal(real_model, json.dumps(other), ["fine", f"x{lost}y"])
