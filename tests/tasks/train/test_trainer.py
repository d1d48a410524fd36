"""The trainer in this process: whatever interrupts it, the result is that of the undisturbed run, byte for byte."""

import fcntl
import gc
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from model.checkpoint import Checkpoints
from tasks.artifact import Artifact
from tasks.errors import ConfigError, DataFault, HostFault, Preempted
from tasks.train import trainer
from tasks.train.journal import Journal, lasting
from tasks.train.remote import Remote
from tasks.train.run import RunSpec
from tasks.train.trainer import train
from tests.tasks.train.nano import NANO, files, nano_spec, never, steps_in
from tests.tasks.training_data import document, make_model, make_pack, make_tokenizer


class Killed(BaseException):
    """Stands for SIGKILL: nothing between it and the end of the test may catch it."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, text_pack) -> RunSpec:
    spec = nano_spec(tmp_path_factory.mktemp("undisturbed"), text_pack)
    train(spec, never)
    return spec


def dies(monkeypatch, where: str, number: int) -> None:
    """Make the number-th event of a kind the last thing a trainer does."""
    owner, name = {"step": (Journal, "step"), "save": (Checkpoints, "save"), "saved": (Journal, "saved")}[where]
    original = getattr(owner, name)
    count = 0

    def dying(self, *args, **kwargs):
        nonlocal count
        count += 1
        result = original(self, *args, **kwargs)
        if count == number:
            raise Killed
        return result

    monkeypatch.setattr(owner, name, dying)


@pytest.mark.parametrize(
    ("where", "number"),
    [
        pytest.param("step", 1, id="before the first checkpoint"),
        pytest.param("step", 8, id="between two checkpoints"),
        pytest.param("save", 2, id="while a checkpoint is written"),
        pytest.param("saved", 2, id="just after it is known to be whole"),
        pytest.param("step", 12, id="after the last step"),
        pytest.param("save", 4, id="while the last checkpoint is written"),
    ],
)
def test_a_killed_run_ends_like_the_undisturbed_one(tmp_path, text_pack, undisturbed, monkeypatch, where, number):
    spec = nano_spec(tmp_path, text_pack)
    with monkeypatch.context() as patch:
        dies(patch, where, number)
        with pytest.raises(Killed):
            train(spec, never)
    assert not spec.result.exists()
    train(spec, never)
    assert files(spec.result) == files(undisturbed.result)
    assert lasting(spec.metrics) == lasting(undisturbed.metrics)


@pytest.mark.parametrize("at", [1, 5, 6, 11])
def test_told_to_stop_it_saves_the_step_it_is_in(tmp_path, text_pack, undisturbed, at):
    spec = nano_spec(tmp_path, text_pack)
    asked = 0

    def soon() -> bool:
        nonlocal asked
        asked += 1
        return asked >= at

    with pytest.raises(Preempted, match=f"stopped at step {at} of 12"):
        train(spec, soon)
    assert steps_in(spec.metrics) == list(range(1, at + 1))
    assert (spec.checkpoints / str(at)).is_dir(), "no finished step is lost"
    train(spec, never)
    assert files(spec.result) == files(undisturbed.result)


def test_a_finished_run_is_not_trained_again(undisturbed, monkeypatch):
    monkeypatch.setattr(trainer, "_Trainer", lambda *_: pytest.fail("began again"))
    train(undisturbed, never)


def test_result_holds_what_the_next_stages_read(undisturbed, tokenizer_artifact, text_pack):
    result = files(undisturbed.result)
    assert sorted(result) == [
        "metrics.jsonl",
        "model/chat_template.jinja",
        "model/config.json",
        "model/generation_config.json",
        "model/model.safetensors",
        "model/special_tokens_map.json",
        "model/tokenizer.json",
        "model/tokenizer.model",
        "model/tokenizer_config.json",
        "token_ledger.json",
    ]
    config = json.loads(result["model/config.json"])
    assert (config["vocab_size"], config["num_hidden_layers"], config["bos_token_id"]) == (400, 2, 2)
    assert json.loads(result["model/generation_config.json"])["eos_token_id"] == 1
    lines = [json.loads(line) for line in result["metrics.jsonl"].splitlines()]
    assert set(lines[0]) == {
        "step",
        "loss",
        "z_loss",
        "accuracy",
        "grad_norm",
        "lr",
        "tokens",
        "learned",
        "source_loss",
    }
    assert all(line["source_loss"].keys() <= {"ja", "en"} for line in lines)
    assert min(line["source_loss"].get("ja", 9) for line in lines) < min(lines[0]["source_loss"].values())
    assert lines[-1]["tokens"] == 12 * 128
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"], "it learns"
    ledger = json.loads(result["token_ledger.json"])
    weights = {s["name"]: s["weight"] for s in text_pack.read_json("mixture.json")["sources"]}
    for source in ledger["sources"]:
        assert source["token_share"] == pytest.approx(weights[source["name"]], abs=0.05)


def break_newest(spec: RunSpec, how: str) -> None:
    newest = max(spec.checkpoints.iterdir(), key=lambda path: int(path.name))
    if how == "gone":
        shutil.rmtree(newest)
        return
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    if how == "truncated":
        data = data[: len(data) // 2]
    else:
        data[len(data) // 2] ^= 0x10
    largest.write_bytes(data)


@pytest.mark.parametrize("how", ["gone", "truncated", "bit flipped"])
def test_a_lost_newest_checkpoint_is_never_passed_over_in_silence(tmp_path, text_pack, undisturbed, how):
    spec = nano_spec(tmp_path, text_pack)
    calls = iter([False] * 7 + [True])
    with pytest.raises(Preempted):
        train(spec, lambda: next(calls))
    break_newest(spec, how)
    with pytest.raises(DataFault, match="allow_rollback"):
        train(spec, never)
    with pytest.raises(DataFault, match="allow_rollback"):
        train(spec, never)
    allowed = nano_spec(tmp_path, text_pack, allow_rollback=True)
    train(allowed, never)
    assert files(allowed.result) == files(undisturbed.result)
    gc.collect()


def test_all_checkpoints_lost_is_said_too(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack)
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(spec, lambda: next(calls))
    shutil.rmtree(spec.checkpoints)
    with pytest.raises(DataFault, match="step 5 was saved and confirmed"):
        train(spec, never)


def test_history_that_lacks_a_step_is_refused(tmp_path, text_pack):
    spec = nano_spec(tmp_path, text_pack)
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(spec, lambda: next(calls))
    lines = spec.metrics.read_text().splitlines(keepends=True)
    spec.metrics.write_text("".join(lines[:2] + lines[3:]))
    with pytest.raises(DataFault, match="has 4 of the 5 lines"):
        train(spec, never)


def test_a_run_never_goes_on_as_another_run(tmp_path, text_pack):
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(nano_spec(tmp_path, text_pack), lambda: next(calls))
    with pytest.raises(ConfigError, match=r"peak_lr: 0.01 -> 0.02"):
        train(nano_spec(tmp_path, text_pack, peak_lr=0.02), never)
    # What says only how to run may change.
    train(nano_spec(tmp_path, text_pack, save_every_steps=5, accumulate=1, log_every=3), never)


def test_a_grace_that_is_too_short_is_said(tmp_path, text_pack, caplog):
    for left, level in ((1e-9, "WARNING"), (3600.0, "INFO")):
        caplog.clear()
        calls = iter([False, False, True])
        with caplog.at_level("INFO"), pytest.raises(Preempted):
            train(nano_spec(tmp_path / level, text_pack), lambda calls=calls: next(calls), lambda left=left: left)
        (said,) = [record for record in caplog.records if "told to stop with" in record.message]
        assert said.levelname == level


def test_a_save_that_fails_stops_the_run_and_says_what_is_safe(tmp_path, text_pack, undisturbed, monkeypatch):
    wait = Checkpoints.wait
    calls = []

    def failing(self):
        calls.append(1)
        if len(calls) == 2:  # the save of step 6, noticed at step 9
            raise ValueError("RESOURCE_EXHAUSTED: Error writing: Failed to write 7 bytes: No space left on device")
        wait(self)

    spec = nano_spec(tmp_path, text_pack)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "wait", failing)
        with pytest.raises(HostFault, match=r"7 bytes: No space left on device.*MiB free. Steps up to 3 are safe"):
            train(spec, never)
    train(spec, never)
    assert files(spec.result) == files(undisturbed.result)


def test_gradient_accumulation_changes_only_rounding(tmp_path, text_pack, undisturbed):
    spec = nano_spec(tmp_path, text_pack, accumulate=2)
    train(spec, never)
    losses = [[json.loads(line)["loss"] for line in s.metrics.read_text().splitlines()] for s in (spec, undisturbed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_run_whose_machine_is_gone_goes_on_elsewhere_from_the_copy(
    tmp_path, text_pack, undisturbed, monkeypatch, caplog
):
    caplog.set_level("INFO")
    remote = str(tmp_path / "remote")
    with monkeypatch.context() as patch:
        dies(patch, "saved", 2)
        with pytest.raises(Killed):
            train(nano_spec(tmp_path / "one", text_pack, remote=remote), never)
    shutil.rmtree(tmp_path / "one")
    spec = nano_spec(tmp_path / "two", text_pack, remote=remote, keep=1)
    train(spec, never)
    assert "resumed at step 6 of 12" in caplog.text
    assert files(spec.result) == files(undisturbed.result)
    assert lasting(spec.metrics) == lasting(undisturbed.metrics)
    (copies,) = Path(remote).glob("[!.]*")
    assert Remote(str(copies), 5).steps() == [12]


def as_artifact(spec: RunSpec, like: Artifact) -> Artifact:
    """The result of a run where an artifact is expected."""
    root = spec.run_dir.parent / f"{spec.run_dir.name}-artifact"
    shutil.copytree(spec.result, root / "data", dirs_exist_ok=True)
    entries = tuple(
        like.manifest.files[0].model_copy(update={"path": str(p.relative_to(root / "data"))})
        for p in (root / "data").rglob("*")
        if p.is_file()
    )
    return Artifact(str(root), like.manifest.model_copy(update={"files": entries, "content_digest": "base"}))


def test_fine_tuning_goes_on_from_a_base_and_learns_answers(tmp_path, chat_pack, text_pack, undisturbed):
    base = as_artifact(undisturbed, text_pack)
    spec = nano_spec(tmp_path, chat_pack, base, kind="sft", total_tokens=None, epochs=3, streams=2, seq_len=64)
    train(spec, never)
    first = json.loads(spec.metrics.read_text().splitlines()[0])
    scratch = nano_spec(tmp_path / "scratch", chat_pack, None, kind="sft", total_tokens=128, streams=2, seq_len=64)
    train(scratch, never)
    assert first["loss"] < json.loads(scratch.metrics.read_text().splitlines()[0])["loss"] - 1, (
        "the base knows something"
    )
    generation = json.loads((spec.result / "model" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [1, 5], "a chat model may end its turn"
    tokens = chat_pack.read_json("mixture.json")["total_tokens"]
    assert len(steps_in(spec.metrics)) == 3 * tokens // 128


def test_data_may_be_counted_by_the_base_s_own_tokenizer(tmp_path, tokenizer_artifact):
    """As an open model goes on learning: the pack artifact knows no other tokenizer than the model's."""
    base = make_model(tmp_path, tokenizer_artifact, NANO)
    rows = {"ja": [document(f"a text {i} {'word ' * i}") for i in range(40)]}
    spec = nano_spec(tmp_path / "run", make_pack(tmp_path, base, rows), base, total_tokens=128 * 3)
    assert spec.tokenizer_dir == base.local_dir("model/")
    assert {file.path.name for file in spec.files if file.path.is_relative_to(spec.tokenizer_dir)} == {
        path.name for path in tokenizer_artifact.local_dir().iterdir()
    }, "not the weights, which would be read at every start"
    train(spec, never)
    assert (spec.result / "model" / "tokenizer.json").read_bytes() == (
        tokenizer_artifact.local_dir() / "tokenizer.json"
    ).read_bytes()


def test_neftune_noise_is_resumed_exactly(tmp_path, chat_pack):
    changes = {"kind": "sft", "neftune_alpha": 5.0, "total_tokens": 128 * 7, "seq_len": 64}
    whole = nano_spec(tmp_path / "whole", chat_pack, **changes)
    train(whole, never)
    quiet = nano_spec(tmp_path / "quiet", chat_pack, **(changes | {"neftune_alpha": 0.0}))
    train(quiet, never)
    broken = nano_spec(tmp_path / "broken", chat_pack, **changes)
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(broken, lambda: next(calls))
    train(broken, never)
    assert files(whole.result) == files(broken.result)
    assert lasting(whole.metrics) != lasting(quiet.metrics)


def test_adapters_are_trained_beside_the_base_and_resumed_exactly(tmp_path, text_pack, undisturbed):
    base = as_artifact(undisturbed, text_pack)
    changes = {"lora_rank": 2, "total_tokens": 128 * 7, "ema_decay": 0.5}
    whole = nano_spec(tmp_path / "whole", text_pack, base, **changes)
    train(whole, never)
    broken = nano_spec(tmp_path / "broken", text_pack, base, **changes)
    calls = iter([False] * 4 + [True])
    with pytest.raises(Preempted):
        train(broken, lambda: next(calls))
    train(broken, never)
    assert files(whole.result) == files(broken.result)
    result, before = files(whole.result), files(undisturbed.result)
    assert {"adapter/adapter_config.json", "adapter/adapter_model.safetensors"} < result.keys()
    weights, base_weights = (safetensors.numpy.load(r["model/model.safetensors"]) for r in (result, before))
    changed = {name for name, array in weights.items() if not np.array_equal(array, base_weights[name])}
    assert changed == {name for name in weights if name.endswith("_proj.weight")}


def test_what_does_not_fit_together_is_refused(tmp_path, text_pack, chat_pack, undisturbed, tokenizer_artifact):
    with pytest.raises(ConfigError, match="reads chat records"):
        train(nano_spec(tmp_path / "a", text_pack, kind="sft"), never)
    with pytest.raises(ConfigError, match="is 2 devices, JAX finds 1"):
        train(nano_spec(tmp_path / "b", text_pack, mesh={"fsdp": 2}), never)
    base = as_artifact(undisturbed, text_pack)
    with pytest.raises(ConfigError, match="2 layers of width 32, model=gemma2/tiny has 4 of 256"):
        train(nano_spec(tmp_path / "c", text_pack, base, model="gemma2/tiny"), never)
    other = make_tokenizer(tmp_path, 420)
    spec = nano_spec(tmp_path / "d", text_pack)
    wrong = spec.model_copy(
        update={"identity": spec.identity.model_copy(update={"tokenizer": other.manifest.content_digest})}
    )
    with pytest.raises(ConfigError, match="records were counted with tokenizer"):
        train(wrong, never)
    (Path(base.url) / "data" / "model" / "tokenizer.json").write_bytes(
        (other.local_dir() / "tokenizer.json").read_bytes()
    )
    with pytest.raises(ConfigError, match="other meanings for the same ids"):
        train(nano_spec(tmp_path / "e", text_pack, base), never)


def test_two_trainers_never_share_a_run(tmp_path, text_pack, monkeypatch):
    monkeypatch.setattr(trainer, "LOCK_WAIT_S", 0.3)
    spec = nano_spec(tmp_path, text_pack)
    with (tmp_path / "trainer.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        with pytest.raises(HostFault, match=r"held by another trainer \(process 4711\)"):
            train(spec, never)


def test_leftovers_of_a_killed_save_are_removed(tmp_path, text_pack, undisturbed):
    spec = nano_spec(tmp_path, text_pack)
    half = spec.checkpoints / "3.orbax-checkpoint-tmp-17"
    half.mkdir(parents=True)
    (half / "piece").write_bytes(b"x" * 100)
    train(spec, never)
    assert not half.exists()
    assert files(spec.result) == files(undisturbed.result)
