"""Configs are refused when made, with the values, the rule, the reason and the remedy."""

import pytest

from model.config import ComputeConfig, DecoderConfig, MeshConfig, MoEConfig, OptimizerConfig
from tests.model.random_decoders import small_config


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        pytest.param({"num_kv_heads": 3}, ["num_heads=4", "num_kv_heads=3", "Use a divisor of 4"], id="uneven groups"),
        pytest.param({"head_dim": 15}, ["head_dim=15", "odd", "Use 16"], id="rope needs pairs"),
        pytest.param({"num_layers": 0}, ["num_layers=0", "1 or more"], id="no layers"),
        pytest.param({"attn_softcap": 0.0}, ["attn_softcap=0.0", "positive"], id="cap of zero divides by zero"),
        pytest.param({"query_scale": -1.0}, ["query_scale=-1.0", "positive"], id="negative scale"),
        pytest.param({"layer_pattern": ("local", "far")}, ["layer_pattern", "'local' and 'global'"], id="unknown kind"),
        pytest.param({"layer_pattern": ()}, ["layer_pattern=()", "non-empty"], id="empty pattern"),
        pytest.param({"local_window": None}, ["local_window is None", "Set local_window"], id="no window"),
        pytest.param({"activation": "relu"}, ["activation='relu'", "gelu, silu"], id="activation"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(changes, parts):
    with pytest.raises(ValueError, match=parts[0].split("=")[0]) as error:
        small_config(**changes)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"num_experts": 1}, "num_experts=1 is below 2"),
        ({"experts_per_token": 0}, "experts_per_token=0 is below 1"),
        ({"experts_per_token": 5}, "experts_per_token=5 is more than num_experts=4.*Use 4 or fewer"),
        ({"z_loss_weight": -1e-3}, "z_loss_weight=-0.001"),
        ({"load_balance_weight": -1.0}, "load_balance_weight=-1.0"),
    ],
)
def test_experts_that_cannot_be_are_refused(changes, part):
    with pytest.raises(ValueError, match=part):
        MoEConfig(**({"num_experts": 4, "experts_per_token": 4} | changes))


def test_caps_may_be_absent_and_odd_depths_are_fine():
    cfg = small_config(attn_softcap=None, final_softcap=None, num_layers=3)
    assert cfg.layer_windows == (12, None, 12)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"peak_lr": 0.0}, "peak_lr=0.0"),
        ({"schedule": "linear"}, "schedule='linear'"),
        ({"warmup_steps": 10}, "warmup_steps=10 leaves nothing"),
        ({"final_lr_fraction": 1.5}, "final_lr_fraction=1.5"),
        ({"clip_norm": -1.0}, "clip_norm=-1.0"),
        ({"total_steps": 0}, "total_steps=0"),
    ],
)
def test_an_optimizer_that_cannot_be_is_refused(changes, part):
    with pytest.raises(ValueError, match=part):
        OptimizerConfig(**({"peak_lr": 1e-3, "total_steps": 10} | changes))


def test_warmup_one_step_short_of_the_run_is_accepted():
    assert OptimizerConfig(peak_lr=1e-3, total_steps=10, warmup_steps=9).warmup_steps == 9


def test_meshes_count_their_devices_and_refuse_none():
    assert MeshConfig(data=2, fsdp=4, tensor=3).num_devices == 24
    with pytest.raises(ValueError, match="fsdp=0"):
        MeshConfig(fsdp=0)


def test_how_to_compute_is_checked_too():
    with pytest.raises(ValueError, match="dtype='float16'"):
        ComputeConfig(dtype="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="loss_chunk_tokens=0"):
        ComputeConfig(loss_chunk_tokens=0)
    with pytest.raises(ValueError, match="quantization='int4'"):
        ComputeConfig(quantization="int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"cpu_kernels=True with quantization='int8'.*would be ignored"):
        ComputeConfig(quantization="int8", cpu_kernels=True)
    assert ComputeConfig(quantization="int8").cpu_kernels is False


def test_configs_are_hashable_and_equal_by_value():
    assert hash(small_config()) == hash(small_config())
    assert isinstance(small_config(), DecoderConfig)
    assert small_config() != small_config(num_layers=5)
