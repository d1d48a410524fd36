"""The train stage: resolve a run, have it trained in a process of its own, keep the result as one unit."""

import json
from pathlib import Path

from tasks.artifact import Artifact, Stage, Workspace, open_artifact
from tasks.errors import ConfigError
from tasks.tokens import TOKENIZER_FILES, tokenizer_prefix
from tasks.train.config import TrainConfig
from tasks.train.goodput import account, read_marks
from tasks.train.journal import timings
from tasks.train.launcher import train_to_the_end
from tasks.train.launchers import LAUNCHERS
from tasks.train.run import InputFile, RunIdentity, RunSpec

UNIT = "train"


def train(workspace: Workspace, config: TrainConfig, inputs: dict[str, Artifact]) -> None:
    """Train (or go on training) and keep model/, metrics.jsonl and token_ledger.json."""
    record = workspace.unit_record(UNIT)
    if record is None:
        config.check_machine()
        spec = resolve(workspace.scratch, config, inputs)
        steps = config.steps(spec.mixture()["total_tokens"])
        starts = train_to_the_end(spec, LAUNCHERS[config.launcher], f"train {workspace.name}", steps)
        with workspace.unit(UNIT) as unit:
            for path in sorted(path for path in spec.result.rglob("*") if path.is_file()):
                unit.add_file(path.relative_to(spec.result).as_posix(), path)
            lines = [json.loads(line) for line in (spec.result / "metrics.jsonl").read_text().splitlines()]
            spent = account(read_marks(spec.goodput)).facts(
                config.mesh.to_model().num_devices, config.usd_per_device_hour, config.watts_per_device
            )
            unit.note(
                tokens=lines[-1]["tokens"],
                final_loss=next((line["loss"] for line in reversed(lines) if line["loss"] is not None), None),
                steps_left_out=sum("skipped" in line for line in lines),
                trainer_starts=starts,
                timings=timings(spec.metrics),
                goodput=spent,
                cost=spent.get("usd", 0.0),
            )
        record = workspace.unit_record(UNIT)
        assert record is not None
    workspace.note(**record.facts)


def resolve(run_dir: Path, config: TrainConfig, inputs: dict[str, Artifact]) -> RunSpec:
    """The run with local paths for its inputs.

    Raises:
        ConfigError: an input is missing or is not what its role needs.
    """
    if "data" not in inputs:
        raise ConfigError(
            f"inputs {sorted(inputs)} have no data: a run needs records to train on. Set data to a pack artifact, for "
            "example pack/tiny:pretrain."
        )
    data, base, taught = inputs["data"], inputs.get("base"), inputs.get("taught")
    tokenizer = inputs.get("tokenizer") or _tokenizer_of(data)
    if base is not None and not base.files("model/"):
        raise ConfigError(
            f"{base.url} has no model/: base is a model to start from. Give a train or teacher artifact, for example "
            "pretrain/tiny."
        )
    own = tokenizer_prefix(entry.path for entry in tokenizer.files())
    if taught is not None:
        _require_taught(taught, data)
    return RunSpec(
        config=config,
        identity=RunIdentity(
            config=config.semantic(),
            data=data.manifest.content_digest,
            tokenizer=tokenizer.manifest.content_digest,
            base=base.manifest.content_digest if base is not None else "",
            taught=taught.manifest.content_digest if taught is not None else "",
        ),
        run_dir=run_dir,
        data_dir=data.local_dir(),
        tokenizer_dir=tokenizer.local_dir(own),
        base_dir=base.local_dir("model/") if base is not None else None,
        taught_dir=taught.local_dir() if taught is not None else None,
        files=(
            *_files(data, "mixture.json"),
            *(file.model_copy(update={"sha256": ""}) for file in _files(data, "records/")),
            *(file for file in _files(tokenizer, own) if file.path.name in TOKENIZER_FILES),
            *(file.model_copy(update={"sha256": ""}) for file in (_files(taught, "records/") if taught else ())),
        ),
    )


def _require_taught(taught: Artifact, data: Artifact) -> None:
    parent = taught.manifest.parents.get("data")
    if parent is None or parent.content_digest != data.manifest.content_digest:
        raise ConfigError(
            f"{taught.url} is what a teacher said of {parent.url if parent else 'nothing we know'}, and data is "
            f"{data.url}: its words belong to other records. Make the teach artifact from this data."
        )


def _files(artifact: Artifact, prefix: str) -> list[InputFile]:
    root = artifact.local_dir()
    return [InputFile(path=root / e.path, bytes=e.bytes, sha256=e.sha256) for e in artifact.files(prefix)]


def _tokenizer_of(data: Artifact) -> Artifact:
    parent = data.manifest.parents.get("tokenizer")
    if parent is None:
        raise ConfigError(
            f"{data.url} does not say which tokenizer counted it: its parents are {sorted(data.manifest.parents)}. "
            "Set tokenizer to the artifact."
        )
    return open_artifact(parent.url)


TRAIN = Stage(
    name="train",
    version="1",
    run=train,
    code=("tasks.train", "tasks.taught", "tasks.tokens", "tasks.turns", "model"),
    expensive=True,
)
