"""What a training config refuses, and what it derives."""

import glob

import pytest

from tasks.errors import ConfigError
from tasks.train.config import TrainConfig

SOUND = {
    "model": "gemma2/tiny",
    "kind": "next_token",
    "seq_len": 512,
    "batch_tokens": 4096,
    "total_tokens": 40960,
    "peak_lr": 1e-3,
}

CLUSTER = {"image": "registry/nestling:1", "volume": "gs://models", "mount": "/models"}
PROCESSES = {"launcher": "processes", "mesh": {"fsdp": 4}}
JOBSET = {"launcher": "jobset", "needs": "tpu v6e-4", "mesh": {"fsdp": 4}, "jobset": CLUSTER}


def config(**changes) -> TrainConfig:
    return TrainConfig(**(SOUND | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({"batch_tokens": 4097}, "Use 4,096", id="batch is not whole rows"),
        pytest.param({"total_tokens": None}, "length of a run is said once", id="no length"),
        pytest.param({"epochs": 2}, "length of a run is said once", id="two lengths"),
        pytest.param({"total_tokens": 4095}, "less than one step", id="less than a step"),
        pytest.param({"streams": 3}, "streams cuts 8 rows", id="streams do not divide rows"),
        pytest.param({"accumulate": 3}, "accumulate cuts 8 rows", id="parts do not divide rows"),
        pytest.param({"mesh": {"fsdp": 16}}, "mesh cuts 8 rows", id="more devices than rows"),
        pytest.param({"seq_len": 1024}, r"longer than gemma2/tiny is meant for \(512\)", id="too long"),
        pytest.param({"model": "gemma2/3b"}, "Choose one of gemma2/2b", id="unknown size"),
        pytest.param({"neftune_alpha": 5}, "both are about conversations", id="noise on documents"),
        pytest.param({"peak_lr": 0}, "greater than 0", id="no learning rate"),
        pytest.param({"skip_spikes": 1}, "nothing is ever a spike", id="spikes that nobody looks for"),
        pytest.param({"lora_rank": 8}, "lora_rank=8 without base", id="adapters beside nothing"),
        pytest.param({"base": "a", "lora_targets": ()}, "lora_targets", id="no weight has an adapter"),
        pytest.param({"ema_decay": 1}, "less than 1", id="a mean that never moves"),
        pytest.param({"save_every_steps": 30, "keep_every_steps": 100}, "keep_every_steps=100.*Use 90", id="not saved"),
        pytest.param(
            {"save_every_steps": 30, "remote_every_steps": 20}, "remote_every_steps=20.*Use 30", id="nor that"
        ),
        pytest.param(
            {"save_every_steps": 10, "remote": "/x", "remote_every_steps": 50, "keep_every_steps": 60},
            "keep_every_steps=60 is not a multiple of remote_every_steps=50",
            id="kept where it is not copied",
        ),
        pytest.param({"remote": "checkpoints"}, "relative path", id="where the trainer is not"),
        pytest.param({"batch_token": 8}, "Did you mean batch_tokens", id="unknown key"),
        pytest.param({"hosts": 2}, "only processes is told how many", id="hosts of a local launcher"),
        pytest.param(PROCESSES | {"hosts": 3}, "hosts=3 does not divide the 4 devices", id="unequal hosts"),
        pytest.param(PROCESSES | {"needs": "tpu v6e-4"}, "would not know which chips", id="chips between processes"),
        pytest.param({"launcher": "jobset"}, "Give both or neither", id="a JobSet without a cluster"),
        pytest.param({"jobset": CLUSTER}, "Give both or neither", id="a cluster without a JobSet"),
        pytest.param(JOBSET | {"needs": ""}, "not a slice that a JobSet can ask for", id="no machine"),
        pytest.param(JOBSET | {"needs": "tpu v6e-5"}, "not a slice that a JobSet can ask for", id="no such slice"),
        pytest.param(JOBSET | {"needs": "tpu v6e-8"}, "has 8 chips, mesh has 4 devices", id="another slice"),
        pytest.param(
            JOBSET | {"jobset": CLUSTER | {"env": {"HF_TOKEN": "x"}}}, "neither may hold a secret", id="a secret"
        ),
        pytest.param(JOBSET | {"jobset": CLUSTER | {"mount": "models"}}, "should match pattern", id="relative mount"),
    ],
)
def test_unsound_configs_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        config(**changes)


@pytest.mark.parametrize("remote", ["/mnt/x", "~/x", "gs://bucket/x", "memory://x"])
def test_where_and_how_often_to_copy_is_no_part_of_the_identity(remote):
    changed = config(remote=remote, save_every_steps=10, remote_every_steps=20, keep_every_steps=40, keep_best=1)
    assert changed.with_changes({"confirm_within_s": 1, "rollback_steps_budget": 9}).semantic() == config().semantic()


def test_length_in_steps():
    assert config().steps(10**9) == 10
    assert config(total_tokens=None, epochs=2).steps(41_000) == 20
    assert config(total_tokens=None, epochs=0.001).steps(41_000) == 1
    assert config(total_tokens=4096 * 3 + 4095).steps(0) == 3


@pytest.mark.parametrize(
    ("changes", "warmup"),
    [
        ({}, 0),
        ({"warmup_fraction": 0.1}, 100),
        ({"warmup_fraction": 0.1, "warmup_steps": 7}, 7),
        ({"warmup_fraction": 0.1, "warmup_steps": 0}, 0),
    ],
)
def test_warmup_in_steps_wins_over_the_fraction(changes, warmup):
    assert config(**changes).optimizer(1000).warmup_steps == warmup


def test_where_and_how_fast_is_not_part_of_the_identity():
    here = config()
    there = config(
        mesh={"fsdp": 4}, accumulate=2, needs="tpu", save_every_steps=7, keep=1, allow_rollback=True, log_every=2,
        preempt_budget=1, fault_budget=0, remat="full", launcher="local", data="x", base="y", tokenizer="z",
        grace_s=5, preemption_file="/x", page_every_s=1, tensorboard=True,
        usd_per_device_hour=1.2, watts_per_device=220,
    )  # fmt: skip
    assert here.semantic() == there.semantic()
    for change in (
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"streams": 2},
        {"beta2": 0.9},
        {"schedule": "wsd"},
        {"ema_decay": 0.9},
        {"skip_nonfinite": 1},
        {"spike_factor": 6},
    ):
        assert here.semantic() != config(**change).semantic()


def test_a_missing_accelerator_stops_the_run_and_names_what_runs_here(monkeypatch):
    monkeypatch.setattr(glob, "glob", lambda pattern: [])
    monkeypatch.delenv("TPU_WORKER_ID", raising=False)
    config().check_machine()
    with pytest.raises(ConfigError, match=r"needs tpu v6e-256; this machine has .* no accelerator.*preset `tiny`"):
        config(needs="tpu v6e-256").check_machine()
    monkeypatch.setattr(glob, "glob", lambda pattern: ["/dev/accel0"] if "accel" in pattern else [])
    config(needs="tpu v6e-256").check_machine()


@pytest.mark.parametrize(
    ("changes", "guard"),
    [({}, False), ({"skip_nonfinite": 1}, True), ({"spike_factor": 6.0}, True), ({"ema_decay": 0.9}, False)],
)
def test_steps_are_guarded_only_when_some_may_be_left_out_or_are_looked_at(changes, guard):
    assert config(**changes).optimizer(10).guard is guard


def test_a_slice_elsewhere_needs_no_accelerator_here(monkeypatch):
    monkeypatch.setattr(glob, "glob", lambda _: [])
    monkeypatch.delenv("TPU_WORKER_ID", raising=False)
    config(**JOBSET).check_machine()


def test_where_a_run_computes_is_not_what_it_makes():
    assert (
        config(**PROCESSES, hosts=2).semantic() == config(**JOBSET, step_timeout_s=9).semantic() == config().semantic()
    )
