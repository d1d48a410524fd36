"""Steps that would do harm: left out or the end of the run, the same after an interruption, and computed again."""

import json
from functools import partial

import numpy as np
import pytest
from safetensors.numpy import load_file

from model.checkpoint import Checkpoints
from model.loop import abstract_state
from model.losses import next_token_loss
from tasks.errors import DataFault, Preempted
from tasks.train import trainer
from tasks.train.replay import replay
from tasks.train.trainer import train
from tests.tasks.train.nano import files, nano_spec, never, steps_in


def hurt(patch, factors: dict[int, float]) -> None:
    """Multiply loss and gradients of some steps, in the step's own program; the data stays as it is."""
    on_device = trainer._Trainer._on_device

    def marked(self, batch, step):
        factor = np.full((self._config.rows, 1), factors.get(step, 1.0), np.float32)
        return on_device(self, batch | {"hurt_B1": factor}, step)

    def harmful(model, batch, **options):
        loss, aux = next_token_loss(model, batch, **options)
        factor = batch["hurt_B1"][0, 0]
        return loss * factor, aux | {"loss_sum": aux["loss_sum"] * factor}

    patch.setattr(trainer._Trainer, "_on_device", marked)
    patch.setattr(trainer._Trainer, "_loss", lambda self: partial(harmful, num_sources=len(self._sources)))


def test_nan_stops_the_run_and_its_dump_computes_the_step_again(tmp_path, text_pack, monkeypatch):
    spec = nano_spec(tmp_path, text_pack)
    hurt(monkeypatch, {5: np.nan})
    with pytest.raises(DataFault, match=r"step 5 is not finite: loss not finite,.*tasks.train.replay") as caught:
        train(spec, never)
    assert caught.value.exit_code == 77
    assert steps_in(spec.metrics) == [1, 2, 3, 4]
    assert [path.name for path in spec.checkpoints.iterdir() if path.name.isdigit()] == ["3"]
    before = files(spec.run_dir)
    lines = list(replay(spec.dump))
    assert [(text.split(":")[0], is_same) for text, is_same in lines] == [("step 4", True), ("step 5", True)]
    assert '"loss": null' in lines[-1][0]
    assert files(spec.run_dir) == before, "a replay writes nothing"


def test_a_replay_says_when_it_is_not_the_same(tmp_path, text_pack, monkeypatch):
    spec = nano_spec(tmp_path, text_pack)
    hurt(monkeypatch, {2: np.nan})
    with pytest.raises(DataFault):
        train(spec, never)
    right = (spec.dump / "step.json").read_text()
    dumped = json.loads(right)
    dumped["numbers"]["lr"] *= 1 + 1e-6
    (spec.dump / "step.json").write_text(json.dumps(dumped))
    assert [is_same for _, is_same in replay(spec.dump)] == [True, False], "from the beginning: no checkpoint was there"
    (spec.dump / "step.json").write_text(right)
    with np.load(spec.dump / "batch.npz") as arrays:
        batch = {name: arrays[name].copy() for name in arrays.files}
    batch["tokens_BT"][0, 0] += 1
    np.savez(spec.dump / "batch.npz", **batch)
    lines = list(replay(spec.dump))
    assert [is_same for _, is_same in lines] == [True, False]
    assert "another batch" in lines[1][0]


GUARDED = {
    "skip_nonfinite": 1,
    "spike_factor": 6.0,
    "spike_window": 4,
    "skip_spikes": 2,
    "ema_decay": 0.8,
    "peak_lr": 1e-3,
}
HARM = {3: np.nan, 7: 50.0, 10: 50.0}


def test_harmful_steps_are_left_out_and_an_interruption_changes_nothing(tmp_path, text_pack, monkeypatch):
    hurt(monkeypatch, HARM)
    whole = nano_spec(tmp_path / "whole", text_pack, **GUARDED)
    train(whole, never)
    lines = [json.loads(line) for line in whole.metrics.read_text().splitlines()]
    skipped = {line["step"]: line["skipped"] for line in lines if "skipped" in line}
    assert skipped == {3: "not_finite", 7: "spike", 10: "spike"}
    assert lines[2]["loss"] is None
    assert lines[3]["lr"] == lines[2]["lr"], "what is left out moves nothing, not even the schedule"
    broken = nano_spec(tmp_path / "broken", text_pack, **GUARDED)
    calls = iter([False] * 7 + [True])
    with pytest.raises(Preempted):
        train(broken, lambda: next(calls))
    train(broken, never)
    assert files(broken.result) == files(whole.result)
    # What is kept is the running mean.
    own = trainer._Trainer(whole, never, lambda: 0.0, lambda _: None)
    with Checkpoints(whole.checkpoints) as checkpoints:
        state = checkpoints.restore(abstract_state(own._cfg, own._optimizer)).state
    kept = load_file(whole.result / "model" / "model.safetensors")["model.embed_tokens.weight"]
    assert np.array_equal(kept, state.opt_state.inner.mean["embed"])
    assert not np.array_equal(kept, state.params["embed"])
    assert int(state.step) == 12 - 3


def test_harm_beyond_the_limit_stops_the_run_also_after_a_resume(tmp_path, text_pack, monkeypatch):
    hurt(monkeypatch, HARM)
    spec = nano_spec(tmp_path, text_pack, **(GUARDED | {"skip_spikes": 1}))
    calls = iter([False] * 7 + [True])
    with pytest.raises(Preempted):
        train(spec, lambda: next(calls))
    with pytest.raises(DataFault, match=r"step 10 is a spike: .* skip_spikes=1 such steps may be left out, and this"):
        train(spec, never)
    assert all(is_same for _, is_same in replay(spec.dump))
