"""The table of families: published parameter counts, and the chat template as jinja renders it."""

import jinja2
import pytest

from model.families import FAMILIES, decoder_config, gemma2


@pytest.mark.parametrize(
    ("name", "params"),
    [  # safetensors' parameter counts of the published checkpoints
        ("gemma2/2b", 2_614_341_888),
        ("gemma2/9b", 9_241_705_984),
        ("gemma2/27b", 27_227_128_320),
        ("gemma2/tiny", 6_033_664),
    ],
)
def test_sizes_have_the_published_number_of_parameters(name, params):
    assert decoder_config(name).num_params == params


def test_only_the_27b_scales_queries_by_its_own_rule():
    scalars = {
        size: gemma2.to_hf_config(cfg, "bfloat16")["query_pre_attn_scalar"] for size, cfg in gemma2.SIZES.items()
    }
    assert scalars == {"2b": 256, "9b": 256, "27b": 144, "tiny": 64}


def test_the_first_layer_is_local_and_kinds_alternate():
    windows = decoder_config("gemma2/2b").layer_windows
    assert windows[:4] == (4096, None, 4096, None)
    assert len(windows) == 26


@pytest.mark.parametrize("size", ["2b", "9b", "27b", "tiny"])
def test_config_survives_the_way_through_hugging_face(size):
    cfg = decoder_config(f"gemma2/{size}")
    assert gemma2.from_hf_config(gemma2.to_hf_config(cfg, "float32")) == cfg


@pytest.mark.parametrize("name", ["gemma2", "gemma2/1b", "gemma9/2b", ""])
def test_an_unknown_name_is_answered_with_all_known_ones(name):
    with pytest.raises(ValueError, match="Choose one of gemma2/2b, gemma2/9b, gemma2/27b, gemma2/tiny"):
        decoder_config(name)


def test_weight_tables_name_every_parameter_once():
    for family in FAMILIES.values():
        paths = [weight.path for weight in family.WEIGHTS]
        assert len(paths) == len(set(paths)) == 13


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
