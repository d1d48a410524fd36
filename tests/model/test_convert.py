"""Hugging Face directories: shards, and what is said of one that does not fit. Transformers' own: test_parity."""

import json
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from model import safetensors
from model.convert import StoredWeights, config_from_hf, convert_hf, hf_tensors, load_hf, save_hf
from model.families import decoder_config
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


def test_experts_are_a_tensor_each_and_come_back_to_their_places(tmp_path):
    model = random_model(decoder_config("moe/tiny", embed_dim=32, num_layers=2, mlp_dim=48, vocab_size=160))
    save_hf(model, tmp_path, dtype="float32")
    tensors, layers = load_file(tmp_path / "model.safetensors"), split_model(model)[1]["layers"]
    name = "model.layers.1.block_sparse_moe.experts.3.{}.weight"
    for theirs, ours in (("w1", "gate"), ("w3", "up"), ("w2", "down")):
        own = layers["mlp"][ours][1, 3]
        assert np.array_equal(tensors[name.format(theirs)], own.T if ours == "down" else own)
    assert sum("experts" in name for name in tensors) == 2 * 4 * 3
    again = load_hf(tmp_path)
    assert again.cfg == model.cfg
    for a, b in zip(*(jax.tree.leaves(split_model(m)[1]) for m in (model, again)), strict=True):
        assert np.array_equal(a, b)

    edit(tmp_path, lambda tensors: tensors.pop(name.format("w2")))
    with pytest.raises(ValueError, match=r"missing: model\.layers\.1\.block_sparse_moe\.experts\.3\.w2\.weight"):
        load_hf(tmp_path)


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


def test_from_disk_to_disk_in_its_own_dtype_is_the_same_file(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(safetensors, "BLOCK_BYTES", 1000)  # blocks that do not divide the rows
    convert_hf(saved, tmp_path / "again", dtype="float32")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


def test_from_disk_to_disk_gives_what_loading_and_saving_gives(saved, tmp_path):
    options = {"dtype": "bfloat16", "max_shard_bytes": 30_000, "hf_config": {"eos_token_id": [1, 5]}}
    convert_hf(saved, tmp_path / "streamed", **options)
    save_hf(load_hf(saved), tmp_path / "through", **options)
    streamed, through = (sorted((tmp_path / name).iterdir()) for name in ("streamed", "through"))
    assert [p.name for p in streamed] == [p.name for p in through]
    assert len(streamed) > 4
    assert [p.read_bytes() for p in streamed] == [p.read_bytes() for p in through]


def test_from_disk_to_disk_nothing_is_written_of_a_checkpoint_with_nan(model, saved, tmp_path):
    save_hf(model, tmp_path / "target")
    before = {p.name: p.read_bytes() for p in (tmp_path / "target").iterdir()}
    edit(saved, lambda tensors: tensors["model.norm.weight"].__setitem__(7, np.nan))
    with pytest.raises(ValueError, match=r"NaN or infinity in model\.norm\.weight"):
        convert_hf(saved, tmp_path / "target", dtype="float32")
    assert {p.name: p.read_bytes() for p in (tmp_path / "target").iterdir()} == before


def test_from_disk_to_disk_holds_a_block_and_not_a_tensor(tmp_path, monkeypatch):
    save_hf(random_model(small_config(vocab_size=16_384)), tmp_path / "hf", dtype="float32")
    largest = 16_384 * 32 * 4
    convert_hf(tmp_path / "hf", tmp_path / "warm", dtype="float32")

    def peak() -> int:
        tracemalloc.start()
        convert_hf(tmp_path / "hf", tmp_path / "again", dtype="float32")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak() > largest  # one block holds all of it: the measure does see it
    monkeypatch.setattr(safetensors, "BLOCK_BYTES", largest // 16)
    assert peak() < largest / 2


@pytest.mark.parametrize(
    ("path", "index"),
    [
        ("embed", np.s_[20:40, 8:16]),
        ("layers/attention/key", np.s_[1:3, 16:32, 4:8]),
        ("layers/mlp/down", np.s_[0:4, :, 24:32]),
        ("layers/mlp_norm/scale", np.s_[2:3, 5:9]),
        ("final_norm/scale", np.s_[:]),
    ],
)
def test_a_part_is_read_alone(model, saved, path, index):
    index = index if isinstance(index, tuple) else (index,)
    whole = split_model(model)[1]
    for name in path.split("/"):
        whole = whole[name]
    part = StoredWeights.of_directory(saved, model.cfg).read(path, index)
    np.testing.assert_array_equal(part, np.asarray(whole)[index])


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


def test_weights_of_another_family_are_refused(saved):
    llama = {"family": "llama3", "post_norms": False, "scale_embeddings": False, "norm_offset": 0.0}
    with pytest.raises(ValueError, match=r"does not fit llama3 .*\n.*extra: .*post_feedforward_layernorm") as error:
        load_hf(saved, small_config(**llama))
    assert len(str(error.value).splitlines()) < 20


def test_head_counts_that_do_not_divide_are_refused(saved):
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"num_key_value_heads": 3}))
    with pytest.raises(ValueError, match="num_heads=4 is not a multiple of num_kv_heads=3"):
        load_hf(saved)


def test_numbers_without_their_scales_are_refused(saved):
    edit(saved, lambda tensors: tensors.__setitem__("model.norm.weight", np.ones(32, np.int8)))
    with pytest.raises(ValueError, match=r"model\.safetensors holds numbers of type I8: known are F64, F32, F16, BF16"):
        load_hf(saved)


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
