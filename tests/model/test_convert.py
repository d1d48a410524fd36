"""Hugging Face directories: shards, and what is said of one that does not fit. Transformers' own: test_parity."""

import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model.convert import config_from_hf, hf_tensors, load_hf, save_hf
from model.loop import split_model
from tests.model.random_decoders import random_model, small_config


@pytest.fixture(scope="module")
def model():
    return random_model(small_config())


@pytest.fixture
def saved(model, tmp_path):
    save_hf(model, tmp_path / "hf", dtype="float32")
    return tmp_path / "hf"


def edit(directory, change):
    """Rewrite model.safetensors with safetensors' own writer."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def test_weights_and_config_come_back_as_they_were(model, saved):
    again = load_hf(saved)
    assert again.cfg == model.cfg
    for a, b in zip(*(jax.tree.leaves(split_model(m)[1]) for m in (model, again)), strict=True):
        assert np.array_equal(a, b)


def test_our_writer_makes_the_bytes_of_safetensors_own(saved):
    before = (saved / "model.safetensors").read_bytes()
    edit(saved, lambda tensors: None)
    assert (saved / "model.safetensors").read_bytes() == before


def test_bfloat16_is_rounded_to_nearest(model, tmp_path):
    save_hf(model, tmp_path)
    table = dict(hf_tensors(tmp_path))["model.embed_tokens.weight"]
    assert np.array_equal(table, np.asarray(split_model(model)[1]["embed"]).astype(ml_dtypes.bfloat16))


def test_a_checkpoint_in_shards_is_the_same_checkpoint(model, saved, tmp_path):
    save_hf(model, tmp_path / "shards", dtype="float32", max_shard_bytes=30_000)
    files = sorted(path.name for path in (tmp_path / "shards").glob("*.safetensors"))
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 3
    index = json.loads((tmp_path / "shards" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for _, t in hf_tensors(saved))
    for name, file in index["weight_map"].items():
        assert np.array_equal(load_file(tmp_path / "shards" / file)[name], load_file(saved / "model.safetensors")[name])
    save_hf(load_hf(tmp_path / "shards"), tmp_path / "shards", dtype="float32")
    assert (tmp_path / "shards" / "model.safetensors").read_bytes() == (saved / "model.safetensors").read_bytes()
    assert sorted(p.name for p in (tmp_path / "shards").iterdir()) == ["config.json", "model.safetensors"]


def test_other_files_of_the_directory_stay_and_config_takes_additions(model, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    save_hf(model, tmp_path, hf_config={"eos_token_id": [1, 5]})
    assert (tmp_path / "tokenizer.json").read_text() == "{}"
    assert json.loads((tmp_path / "config.json").read_text())["eos_token_id"] == [1, 5]


def test_missing_extra_and_misshaped_are_reported_together(saved):
    def change(tensors):
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["lm_head.weight"] = np.zeros((160, 32), np.float32)
        tensors["model.layers.0.self_attn.q_proj.weight"] = np.zeros((64, 31), np.float32)

    edit(saved, change)
    with pytest.raises(ValueError, match="does not fit gemma2") as error:
        load_hf(saved)
    text = str(error.value)
    assert "missing: model.layers.1.mlp.up_proj.weight" in text
    assert "extra: lm_head.weight" in text
    assert "misshaped: model.layers.0.self_attn.q_proj.weight is [64, 31], not [64, 32]" in text


@pytest.mark.parametrize("vocab_size", [159, 161])
def test_another_vocabulary_is_neither_padded_nor_cut(saved, vocab_size):
    with pytest.raises(ValueError, match=rf"model.embed_tokens.weight is \[160, 32\], not \[{vocab_size}, 32\]"):
        load_hf(saved, small_config(vocab_size=vocab_size))


def test_a_truncated_file_is_named(saved):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"model.safetensors \([\d,]+ bytes\) is damaged .* Fetch it again"):
        load_hf(saved)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused_by_name(saved, bad):
    edit(saved, lambda tensors: tensors["model.layers.2.mlp.down_proj.weight"].__setitem__((3, 4), bad))
    with pytest.raises(ValueError, match=r"NaN or infinity in model\.layers\.2\.mlp\.down_proj\.weight"):
        load_hf(saved)


def test_an_unknown_family_is_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(ValueError, match=r"model_type='mamba'.*Use a model of gemma2"):
        config_from_hf(saved)


def test_directories_without_a_model_say_what_they_lack(tmp_path, saved):
    with pytest.raises(ValueError, match=r"config\.json cannot be read"):
        load_hf(tmp_path)
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"has no \*\.safetensors"):
        load_hf(saved)


def test_a_dtype_that_training_cannot_use_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match="dtype='float16' cannot be written"):
        save_hf(model, tmp_path, dtype="float16")
