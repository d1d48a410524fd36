"""The proof: which differences refuse a release, and a real comparison with transformers."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from tasks.errors import DataFault
from tasks.inference import TextCodec
from tasks.release.proof import (
    ALLOWED,
    TIE,
    Comparison,
    Continuation,
    Prompt,
    by_transformers,
    compare,
    continue_natively,
    log_softmax,
    prompts_of,
    record,
    require_same,
    require_same_ids,
)
from tests.tasks import tiny_model

PYTHON = Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python"
PROMPTS = [Prompt("text", "a", (2, 9))]


def continuation(*margins: float) -> Continuation:
    """Token 1 is chosen at each step, ahead of token 2 by a margin; token 0 is far behind."""
    return Continuation((1,) * len(margins), np.array([[-20.0, margin, 0.0] for margin in margins]))


def theirs(ours: Continuation, tokens: list[int], shift: float = 0.0) -> Comparison:
    logprobs = log_softmax(ours.logits_TV)[range(len(tokens)), tokens] + shift
    return compare(0, "text", ours, tokens, logprobs.tolist())


def test_log_softmax_is_a_distribution():
    rows = np.random.default_rng(0).normal(size=(5, 7), scale=30).astype(np.float32)
    assert np.exp(log_softmax(rows)).sum(-1) == pytest.approx(np.ones(5))
    assert log_softmax(np.array([[0.0, 0.0]]))[0, 0] == pytest.approx(math.log(0.5))


def test_equal_tokens_pass():
    found = theirs(continuation(1, 2, 3), [1, 1, 1])
    assert found.compared == found.tokens == 3
    assert found.is_same
    require_same("x", [found], PROMPTS)


@pytest.mark.parametrize(("margin", "is_same"), [(TIE * 0.99, True), (TIE * 1.01, False), (1.0, False), (-TIE, True)])
def test_paths_may_part_at_a_tie_only(margin, is_same):
    found = theirs(continuation(1, margin, 1), [1, 2, 1])
    assert (found.diverged_at, found.ours, found.theirs, found.compared) == (1, 1, 2, 1)
    assert found.margin == pytest.approx(margin)
    assert found.is_same is is_same
    if not is_same:
        with pytest.raises(DataFault, match="parts at token 1: ours 1, theirs 2"):
            require_same("x", [found], PROMPTS)


@pytest.mark.parametrize(("shift", "is_same"), [(ALLOWED * 0.9, True), (ALLOWED * 1.1, False)])
def test_log_probabilities_must_agree(shift, is_same):
    found = theirs(continuation(1, 2), [1, 1], shift)
    assert found.is_same is is_same
    if not is_same:
        with pytest.raises(DataFault, match="log-probabilities differ"):
            require_same("x", [found], PROMPTS)


def test_what_comes_after_a_divergence_is_not_compared():
    ours = continuation(1, TIE / 2, 1)
    found = compare(0, "text", ours, [1, 2, 0], [float(ours.logprobs[0]), -99.0, -99.0])
    assert found.max_logprob_difference == 0
    assert found.is_same


@pytest.mark.parametrize("tokens", [[1], [1, 1, 1]])
def test_another_number_of_tokens_is_a_divergence_and_no_tie(tokens):
    ours = continuation(1, 1)
    found = compare(0, "text", ours, tokens, ours.logprobs.tolist()[: len(tokens)] + [0.0] * (len(tokens) - 2))
    assert found.diverged_at == min(len(tokens), 2)
    assert not found.is_same


def test_logits_are_compared_at_the_place_of_divergence_too():
    ours = continuation(1, TIE / 2)
    other = ours.logits_TV + np.array([[0.0], [0.25]])
    assert compare(0, "text", ours, [1, 2], [0.0, 0.0], other).max_logit_difference == pytest.approx(0.25)


def test_other_ids_for_the_same_text_are_refused():
    require_same_ids("x", PROMPTS[0], [2, 9])
    with pytest.raises(DataFault, match="would be asked something else"):
        require_same_ids("x", PROMPTS[0], [9])


def test_the_record_counts_ties_and_keeps_the_largest_difference():
    ours = continuation(1, TIE / 2)
    kept = record("x", "1.0", [theirs(ours, [1, 1], 1e-5), theirs(ours, [1, 2], 1e-6)])
    assert (kept["prompts"], kept["tokens"], kept["ties"]) == (2, 2, 1)
    assert kept["max_logprob_difference"] == pytest.approx(1e-5)
    assert kept["comparisons"][1]["is_tie"] is True


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("proof") / "model")


def test_a_long_prompt_leaves_the_local_window(directory):
    prompts = prompts_of(TextCodec(directory), ["The package", "利用者は"], ["方針とは?"], longer_than=40)
    assert [prompt.kind for prompt in prompts] == ["text", "text", "chat", "text"]
    assert len(prompts[-1].ids) > 41
    assert len(prompts_of(TextCodec(directory), ["a"], [])) == 1


@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm: make vllm")
def test_transformers_continues_as_our_decoder_does(directory, tmp_path):
    prompts = prompts_of(TextCodec(directory), ["The package", "利用者は"], ["方針とは?"], longer_than=40)
    ours = continue_natively(directory, prompts, 16)
    found, facts = by_transformers(PYTHON, directory, prompts, ours, tmp_path)
    require_same("transformers", found, prompts)
    assert all(one.compared == 16 for one in found)
    assert max(one.max_logit_difference or 0 for one in found) < 1e-4
    assert facts["attention"] == "eager"


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm: make vllm")
def test_a_weight_that_is_five_percent_off_is_refused(directory, tmp_path):
    prompts = prompts_of(TextCodec(directory), ["The package", "利用者は"], ["方針とは?"], longer_than=40)
    ours = continue_natively(directory, prompts, 16)
    damaged = tmp_path / "damaged"
    shutil.copytree(directory, damaged)
    weights = safetensors.numpy.load_file(damaged / "model.safetensors")
    weights["model.layers.1.self_attn.q_proj.weight"] *= np.float32(1.05)
    safetensors.numpy.save_file(weights, damaged / "model.safetensors", {"format": "pt"})
    found, _ = by_transformers(PYTHON, damaged, prompts, ours, tmp_path)
    with pytest.raises(DataFault, match="does not reproduce the model"):
        require_same("transformers", found, prompts)
