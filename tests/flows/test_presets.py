"""Every row of flows/presets.py is a run that can be planned; the big ones have the published numbers."""

import subprocess
import sys

import pytest

from flows.graph import Resolver, check_machine, walk
from flows.registry import FLOWS
from tasks.errors import ConfigError
from tasks.train.config import TrainConfig

ROWS = [(flow, str(preset)) for flow, spec in FLOWS.items() for preset in spec.presets]
BIG = [(flow, preset) for flow, preset in ROWS if preset in {"2b", "9b", "27b"}]


def config(flow: str, preset: str) -> TrainConfig:
    found = Resolver(FLOWS, {}).config(flow, preset)
    assert isinstance(found, TrainConfig)
    return found


@pytest.mark.parametrize(("flow", "preset"), ROWS)
def test_every_preset_becomes_a_graph(flow, preset):
    steps = walk(Resolver(FLOWS, {}).outputs(flow, preset))
    assert steps
    assert len({step.label for step in steps}) == len(steps), "two steps would write under one name"


def test_every_flow_has_a_tiny_preset_and_the_published_ones_exist():
    assert all("tiny" in spec.presets for spec in FLOWS.values())
    assert set(FLOWS) == {
        "ingest", "classify", "synth", "pack", "pretrain", "cpt", "distill", "instruct", "sft", "eval", "release",
        "preflight", "factory",
    }  # fmt: skip
    assert {(f, p) for f, p in BIG} == {(f, p) for f in ("cpt", "sft") for p in ("2b", "9b", "27b")}
    assert "nightly" in FLOWS["eval"].presets


@pytest.mark.parametrize(("size", "peak_lr"), [("2b", 2.5e-5), ("9b", 2.5e-5), ("27b", 1.5e-5)])
def test_cpt_presets_have_the_published_hyper_parameters(size, peak_lr):
    """Gemma-2-Llama-Swallow: recipes.md 7.3 (50,000 steps, about 200 B tokens) and 14."""
    found = config("cpt", size)
    optimizer = found.optimizer(found.steps(0))
    assert found.model == f"gemma2/{size}"
    assert (found.seq_len, found.rows, found.steps(0)) == (8_192, 512, 50_000)
    assert found.total_tokens == 209_715_200_000
    assert (optimizer.peak_lr, optimizer.final_lr_fraction, optimizer.warmup_steps) == (peak_lr, 0.1, 1_000)
    assert (optimizer.beta1, optimizer.beta2, optimizer.eps) == (0.9, 0.95, 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.z_loss) == (0.1, 1.0, 1e-4)
    assert (optimizer.schedule, found.dtype) == ("cosine", "bfloat16")
    assert 250 <= found.save_every_steps <= 500


@pytest.mark.parametrize(("size", "low", "high"), [("2b", 2.5e-5, 2.5e-5), ("9b", 1e-5, 2.5e-5), ("27b", 1e-5, 1e-5)])
def test_sft_presets_have_the_published_hyper_parameters(size, low, high):
    """recipes.md 8.2 and 14: batch 256, 1-2 epochs, warm-up 10 %, loss on the last answer."""
    found = config("sft", size)
    optimizer = found.optimizer(1_000)
    assert low <= found.peak_lr <= high
    assert (found.seq_len, found.rows, optimizer.warmup_steps, found.loss_turns) == (8_192, 256, 100, "last")
    assert found.epochs is not None
    assert 1 <= found.epochs <= 2
    assert (optimizer.final_lr_fraction, optimizer.weight_decay, optimizer.clip_norm) == (0.1, 0.1, 1.0)


@pytest.mark.parametrize(("flow", "preset"), BIG)
def test_big_presets_fill_the_slice_they_need(flow, preset):
    found = config(flow, preset)
    chips = int(found.needs.rpartition("-")[2])
    assert found.mesh.to_model().num_devices == chips
    assert found.rows % chips == 0


@pytest.mark.parametrize(("flow", "preset"), BIG)
def test_big_presets_stop_at_once_without_their_accelerator(flow, preset, monkeypatch):
    monkeypatch.setattr("tasks.train.config.glob.glob", lambda pattern: [])
    monkeypatch.delenv("TPU_WORKER_ID", raising=False)
    with pytest.raises(ConfigError, match=r"needs tpu v6e-\d+") as error:
        check_machine(Resolver(FLOWS, {}).outputs(flow, preset))
    assert "tiny" in str(error.value)


@pytest.mark.parametrize("accepted", ["", pytest.param("1", marks=pytest.mark.slow)])
def test_gemma_weights_are_in_the_graph_only_after_the_terms_were_accepted(accepted):
    program = (
        "from flows.graph import Resolver, walk; from flows.registry import FLOWS; "
        "print(*[s.label for s in walk(Resolver(FLOWS, {}).outputs('factory', 'tiny'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"NESTLING_ACCEPT_GEMMA_TERMS": accepted, "PATH": "", "DO_NOT_TRACK": "1"},
    )
    assert ("gemma" in done.stdout) == bool(accepted)
    assert "teacher/smollm2" in done.stdout


@pytest.mark.parametrize(
    ("flow", "output", "key", "before"),
    [
        ("ingest", "ja", "corpora.ja.decontaminate", "dedup"),
        ("synth", "qa-en", "decontaminate", "synth"),
        ("instruct", "en", "decontaminate", "instruct"),
    ],
)
def test_benchmark_items_are_dropped_before_training_unless_that_is_switched_off(flow, output, key, before):
    step = Resolver(FLOWS, {}).outputs(flow, "tiny")[output]
    assert step.stage.name == "decontaminate"
    docs = step.parents["docs"]
    assert not isinstance(docs, str)
    assert docs.stage.name == before
    assert Resolver(FLOWS, {(flow, "tiny"): {key: None}}).outputs(flow, "tiny")[output].stage.name == before
