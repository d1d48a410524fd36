"""The table of families: published parameter counts, and the chat template as jinja renders it."""

from dataclasses import replace

import jinja2
import pytest
from jax.tree_util import tree_leaves_with_path

from model.families import FAMILIES, decoder_config, gemma2
from model.loop import abstract_params


@pytest.mark.parametrize(
    ("name", "params"),
    [  # safetensors' parameter counts of the published checkpoints
        ("gemma2/2b", 2_614_341_888),
        ("gemma2/9b", 9_241_705_984),
        ("gemma2/27b", 27_227_128_320),
        ("gemma2/tiny", 6_033_664),
        ("gemma3/270m", 268_098_176),
        ("gemma3/1b", 999_885_952),
        ("gemma3/4b", 4_300_079_472 - 416_866_032 - 2_950_272),  # without vision tower and projector
        ("gemma3/27b", 27_009_346_304),
        ("llama3/8b", 8_030_261_248),
        ("llama3/3.3-70b", 70_553_706_496),
        ("llama3/smollm2-135m", 134_515_008),
        ("moe/mixtral-8x7b", 46_702_792_704),
    ],
)
def test_sizes_have_the_published_number_of_parameters(name, params):
    assert decoder_config(name).num_params == params


@pytest.mark.parametrize(
    ("name", "billions", "active_billions"),  # as published, rounded by their authors
    [("moe/mixtral-8x7b", 47, 13), ("moe/tanuki-8x8b", 47, 13), ("llama3/8b", 8, 8)],
)
def test_a_token_meets_only_the_parameters_of_its_experts(name, billions, active_billions):
    cfg = decoder_config(name)
    assert round(cfg.num_params / 1e9) == billions
    assert round(cfg.num_active_params / 1e9) == active_billions


def test_counted_parameters_are_those_that_are_there():
    for name in ("gemma3/tiny", "moe/tiny"):
        cfg = decoder_config(name)
        assert sum(leaf.size for _, leaf in tree_leaves_with_path(abstract_params(cfg))) == cfg.num_params


def test_a_model_with_normalised_router_logits_does_not_pass_for_a_mixtral():
    """transformers and vLLM would compute it without, and say nothing."""
    cfg = decoder_config("moe/tiny")
    assert cfg.moe is not None
    for is_normalised, kind in ((False, "mixtral"), (True, "nestling_moe")):
        cfg = replace(cfg, moe=replace(cfg.moe, normalise_router_logits=is_normalised))
        config = FAMILIES["moe"].to_hf_config(cfg, "float32")
        assert config["model_type"] == kind
        assert FAMILIES["moe"].from_hf_config(config) == cfg


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("gemma3/tiny", {"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "'yarn'"),
        ("gemma3/tiny", {"use_bidirectional_attention": True}, "looks back only"),
        ("gemma3/tiny", {"layer_types": ["full_attention"] * 6}, "five sliding layers and a full one"),
        ("llama3/tiny", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama3/tiny", {"attention_bias": True}, "attention_bias"),
        ("llama3/tiny", {"hidden_act": "gelu"}, "'gelu'"),
        ("moe/tiny", {"sliding_window": 4096}, "sliding_window=4096"),
        ("moe/tiny", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "'yarn'"),
        ("moe/tiny", {"hidden_act": "gelu"}, "'gelu'"),
    ],
)
def test_a_checkpoint_that_computes_otherwise_is_refused(name, changes, said):
    cfg, family = decoder_config(name), FAMILIES[name.partition("/")[0]]
    with pytest.raises(ValueError, match=said):
        family.from_hf_config(family.to_hf_config(cfg, "float32") | changes)


def test_only_the_27b_scales_queries_by_its_own_rule():
    scalars = {
        size: gemma2.to_hf_config(cfg, "bfloat16")["query_pre_attn_scalar"] for size, cfg in gemma2.SIZES.items()
    }
    assert scalars == {"2b": 256, "9b": 256, "27b": 144, "tiny": 64}


def test_the_first_layer_is_local_and_kinds_alternate():
    windows = decoder_config("gemma2/2b").layer_windows
    assert windows[:4] == (4096, None, 4096, None)
    assert len(windows) == 26


@pytest.mark.parametrize("name", [f"{name}/{size}" for name, family in FAMILIES.items() for size in family.SIZES])
def test_config_survives_the_way_through_hugging_face(name):
    cfg, family = decoder_config(name), FAMILIES[name.partition("/")[0]]
    assert family.from_hf_config(family.to_hf_config(cfg, "float32")) == cfg


@pytest.mark.parametrize("name", ["gemma2", "gemma2/1b", "gemma9/2b", ""])
def test_an_unknown_name_is_answered_with_all_known_ones(name):
    with pytest.raises(ValueError, match="Choose one of gemma2/2b, gemma2/9b, gemma2/27b, gemma2/tiny"):
        decoder_config(name)


@pytest.mark.parametrize(
    ("name", "tensors"),
    [("gemma2/tiny", 13), ("gemma3/tiny", 15), ("llama3/tiny", 12), ("llama3/smollm2-135m", 11), ("moe/tiny", 13)],
)
def test_weight_tables_name_every_parameter_once(name, tensors):
    cfg = decoder_config(name)
    table = FAMILIES[cfg.family].weights(cfg)
    paths = {"/".join(str(part.key) for part in path) for path, _ in tree_leaves_with_path(abstract_params(cfg))}
    assert sorted(weight.path for weight in table) == sorted(paths)
    assert len({weight.hf_name for weight in table}) == len(table) == tensors


def _render(messages, **options):
    env = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers sets it

    def refuse(message):
        raise jinja2.TemplateError(message)

    env.globals["raise_exception"] = refuse
    return env.from_string(gemma2.CHAT_TEMPLATE).render(messages=messages, bos_token="<bos>", **options)


def test_chat_template_renders_a_conversation():
    messages = [
        {"role": "user", "content": " Hello "},
        {"role": "assistant", "content": "やあ"},
        {"role": "user", "content": "Bye"},
    ]
    assert _render(messages, add_generation_prompt=True) == (
        "<bos><start_of_turn>user\nHello<end_of_turn>\n<start_of_turn>model\nやあ<end_of_turn>\n"
        "<start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
    )
    assert _render(messages[:2]).endswith("やあ<end_of_turn>\n")


@pytest.mark.parametrize("roles", [["system", "user"], ["assistant"], ["user", "user"]])
def test_chat_template_refuses_roles_that_gemma_does_not_know(roles):
    with pytest.raises(jinja2.TemplateError):
        _render([{"role": role, "content": "x"} for role in roles])
