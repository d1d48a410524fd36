"""A training preset becomes the step of its preflight; keys go to whom they belong."""

import pytest

from flows.graph import Resolver, walk
from flows.preflight import target, trained_step
from flows.presets import CPT, PREFLIGHT, PRETRAIN, SFT, CptPreset
from flows.registry import FLOWS
from tasks.errors import ConfigError
from tasks.preflight.config import PreflightConfig
from tasks.train.config import TrainConfig


def config_of(preset: str, changes: dict | None = None) -> PreflightConfig:
    (step,) = walk(Resolver(FLOWS, changes or {}).outputs("preflight", preset))
    assert isinstance(step.config, PreflightConfig)
    return step.config


@pytest.mark.parametrize(("preset", "slice_", "mesh"), [("cpt-27b", "v6e:16x16", 256), ("cpt-9b", "v6e:8x8", 64)])
def test_the_slice_and_the_step_are_those_of_the_run(preset, slice_, mesh):
    found = config_of(preset)
    assert found.slice == slice_
    assert found.step is not None
    assert found.step.mesh["fsdp"] == mesh
    assert (found.step.seq_len, found.step.rows, found.step.total_tokens) == (8_192, 512, 209_715_200_000)
    assert found.step.compute["dtype"] == "bfloat16"
    assert found.step.compute["scan_layers"]
    assert not found.step.compute["cpu_kernels"]


def test_every_large_training_preset_can_be_preflighted():
    runs = {config.run for config in PREFLIGHT.values()}
    large = {
        f"{flow}/{preset}"
        for flow, presets in (("cpt", CPT), ("sft", SFT), ("pretrain", PRETRAIN))
        for preset, config in presets.items()
        if config.needs
    }
    assert large <= runs


@pytest.mark.parametrize(
    ("reference", "pairs", "preset", "routed"),
    [
        pytest.param("cpt/27b", [], "cpt-27b", [], id="a run with a row"),
        pytest.param("cpt-27b", [], "cpt-27b", [], id="a row"),
        pytest.param("pretrain/tiny", [], "tiny", ["run=pretrain/tiny"], id="a run without a row"),
        pytest.param(
            "cpt/27b",
            ["accumulate=2", "search=false", "mesh.fsdp=128", "ingest/tiny.only=[]"],
            "cpt-27b",
            ["cpt/27b.accumulate=2", "search=false", "cpt/27b.mesh.fsdp=128", "ingest/tiny.only=[]"],
            id="keys of the run, of the preflight, of another flow",
        ),
        pytest.param(
            "pretrain/tiny", ["seq_len=256"], "tiny", ["run=pretrain/tiny", "pretrain/tiny.seq_len=256"], id="both"
        ),
    ],
)
def test_keys_go_to_the_preflight_or_to_the_run_that_it_looks_at(reference, pairs, preset, routed):
    assert target(reference, pairs) == (preset, routed)


def test_knobs_of_a_preflight_and_of_a_training_run_have_different_names():
    assert not set(PreflightConfig.model_fields) & set(TrainConfig.model_fields)


def test_a_change_of_the_run_changes_the_step():
    found = config_of("cpt-27b", {("cpt", "27b"): {"accumulate": 2}})
    assert found.step is not None
    assert (found.step.accumulate, found.step.rows_at_once) == (2, 1)


def test_a_run_that_trains_nothing_is_refused():
    with pytest.raises(ConfigError, match="trains nothing"):
        Resolver(FLOWS, {("preflight", "tiny"): {"run": "ingest/tiny"}}).outputs("preflight", "tiny")


def test_epochs_leave_the_number_of_tokens_open():
    assert trained_step(CPT[CptPreset.TINY]).total_tokens is None
