"""A mixture with phases in the real trainer: killed around a boundary, the model is that of the undisturbed run."""

import json
import logging

import pytest

from tasks.pack.config import Phase
from tasks.train.journal import Journal
from tasks.train.trainer import train
from tests.tasks.train.nano import files, nano_spec, never, steps_in
from tests.tasks.training_data import document, make_pack

TOTAL = 128 * 12  # the second phase begins with the seventh step


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def staged(tmp_path_factory, tokenizer_artifact):
    rows = {
        name: [document(f"{name} {i} the quick brown fox jumps " * 3) for i in range(20)] for name in ("web", "synth")
    }
    phases = (
        Phase(name="first", share=1, weights={"web": 1}),
        Phase(name="last", share=1, weights={"synth": 1}),
    )
    return make_pack(tmp_path_factory.mktemp("staged"), tokenizer_artifact, rows, total_tokens=TOTAL, phases=phases)


@pytest.mark.slow
def test_a_kill_on_either_side_of_a_phase_boundary_leaves_no_trace(tmp_path, staged, monkeypatch):
    undisturbed = nano_spec(tmp_path / "whole", staged)
    train(undisturbed, never)
    ledger = json.loads((undisturbed.result / "token_ledger.json").read_text())
    assert [abs(source["tokens"] - TOTAL / 2) < 64 for source in ledger["sources"]] == [True, True]
    for number in (5, 7):
        spec = nano_spec(tmp_path / f"killed-{number}", staged)
        step, seen = Journal.step, []

        def dying(self, *args, number=number, step=step, seen=seen, **kwargs):
            result = step(self, *args, **kwargs)
            seen.append(result)
            if len(seen) == number:
                raise Killed
            return result

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "step", dying)
            with pytest.raises(Killed):
                train(spec, never)
        assert not spec.result.exists()
        train(spec, never)
        assert steps_in(spec.metrics) == list(range(1, 13))
        assert files(spec.result / "model") == files(undisturbed.result / "model")
        assert json.loads((spec.result / "token_ledger.json").read_text()) == ledger


@pytest.mark.slow
def test_a_run_that_ends_before_a_phase_begins_is_told_so(tmp_path, staged, caplog):
    with caplog.at_level(logging.WARNING):
        train(nano_spec(tmp_path / "short", staged, total_tokens=128 * 6), never)
        assert "768 tokens end before these phases of the mixture begin: last" in caplog.text
        caplog.clear()
        train(nano_spec(tmp_path / "enough", staged, total_tokens=128 * 7), never)
        assert "phases" not in caplog.text
