"""`run.json`: everything a trainer process is told, and the places it writes to.

RUN_DIR/run.json         what to do                     checkpoints/  Orbax, one directory a step
        metrics.jsonl    one line a step, as it happens saves.jsonl   the steps whose checkpoint is known to be whole
        scores.jsonl     of checkpoints, if evaluated   rollbacks.jsonl  steps that were done again, and why
        result/          the model, when finished       error.json    why it stopped, when it did
        trainer.log      its output                     dump/         the step that stopped it (tasks/train/replay.py)
        goodput.jsonl    where the time went            live.html     how it goes, renewed while it runs
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from tasks.errors import ConfigError, DataFault
from tasks.train.config import TrainConfig
from tasks.train.journal import write_whole


class RunIdentity(BaseModel):
    """What a checkpoint was made from; a run never goes on with anything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: dict[str, Any]  # semantic fields only
    data: str
    tokenizer: str
    base: str
    taught: str = ""

    def differences(self, other: "RunIdentity") -> list[str]:
        """Readable `name: mine -> other's`, for every part that differs."""
        mine, theirs = self._flat(), other._flat()
        names = sorted(mine.keys() | theirs.keys())
        return [f"{n}: {mine.get(n)} -> {theirs.get(n)}" for n in names if mine.get(n) != theirs.get(n)]

    def digest(self) -> str:
        """The same for the same run wherever it runs."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    def _flat(self) -> dict[str, Any]:
        inputs = {"data": self.data, "tokenizer": self.tokenizer, "base": self.base, "taught": self.taught}
        return inputs | self.config


class InputFile(BaseModel):
    """A file that a run reads, as it was when the run was resolved."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    bytes: int
    sha256: str = ""
    """Empty for records: there are too many of them to read, and they carry hashes of their own."""


class RunSpec(BaseModel):
    """One training run, resolved: local paths instead of references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainConfig
    identity: RunIdentity
    run_dir: Path
    data_dir: Path
    """`data/` of the pack artifact."""
    tokenizer_dir: Path
    base_dir: Path | None = None
    """A Hugging Face directory to start from."""
    taught_dir: Path | None = None
    """`data/` of the teach artifact."""
    files: tuple[InputFile, ...] = ()
    """Of data and tokenizer, for `check_files`."""

    @property
    def metrics(self) -> Path:
        return self.run_dir / "metrics.jsonl"

    @property
    def saves(self) -> Path:
        return self.run_dir / "saves.jsonl"

    @property
    def scores(self) -> Path:
        return self.run_dir / "scores.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.run_dir / "checkpoints"

    @property
    def result(self) -> Path:
        return self.run_dir / "result"

    @property
    def error(self) -> Path:
        return self.run_dir / "error.json"

    @property
    def log(self) -> Path:
        return self.run_dir / "trainer.log"

    @property
    def dump(self) -> Path:
        return self.run_dir / "dump"

    @property
    def goodput(self) -> Path:
        return self.run_dir / "goodput.jsonl"

    @property
    def page(self) -> Path:
        return self.run_dir / "live.html"

    @property
    def tensorboard(self) -> Path:
        return self.run_dir / "tensorboard"

    def mixture(self) -> dict[str, Any]:
        """The mixture.json of the data, which must fit the kind of run and the tokenizer.

        Raises:
            ConfigError: it does not.
        """
        mixture = json.loads((self.data_dir / "mixture.json").read_text())
        wanted = "chat" if self.config.kind == "sft" else "text"
        if mixture["kind"] != wanted:
            raise ConfigError(
                f"kind={self.config.kind!r} reads {wanted} records, {self.data_dir} holds {mixture['kind']}: "
                "documents have no answers to learn, and conversations are not learnt whole. Give the other mixture "
                "or the other kind."
            )
        if mixture["tokenizer_digest"] != self.identity.tokenizer:
            raise ConfigError(
                f"the records were counted with tokenizer {mixture['tokenizer_digest'][:12]}, the run has "
                f"{self.identity.tokenizer[:12]}: budgets and lengths would be wrong. Pack again with this tokenizer, "
                "or train with the other."
            )
        return mixture

    def check_files(self) -> None:
        """Compare the files of data and tokenizer with what they were when the run was resolved.

        Raises:
            DataFault: one is gone, has another size, or (mixture and tokenizer) other bytes.
        """
        for file in self.files:
            found = file.path.stat().st_size if file.path.is_file() else None
            if found == file.bytes and file.sha256 in ("", hashlib.sha256(file.path.read_bytes()).hexdigest()):
                continue
            what = "is gone" if found is None else f"has {found:,} bytes"
            what += ", but not the same" if found == file.bytes else f", it had {file.bytes:,}"
            raise DataFault(
                f"{file.path} {what}: it was changed after the run was resolved, and the steps that are done were made "
                "with what it was. Bring the file back (the step that made the artifact mends it), or give the changed "
                "data or tokenizer to a new run."
            )

    def write(self) -> Path:
        """Write run.json whole and return its path."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        path = self.run_dir / "run.json"
        write_whole(path, self.model_dump_json(indent=1) + "\n")
        return path


def free_space(directory: Path) -> str:
    """How much room there is, as a sentence."""
    try:
        usage = shutil.disk_usage(directory)
    except OSError:
        return "Its disk cannot be read."
    return f"Its disk has {usage.free / 2**20:,.1f} of {usage.total / 2**20:,.0f} MiB free."


def read_run(path: Path) -> RunSpec:
    """A run.json.

    Raises:
        ConfigError: it is not there or not sound.
    """
    try:
        return RunSpec.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be used ({error}): it says what to train. The train stage writes it; run a flow, or see "
            "docs/stages/train.md for its fields."
        ) from error
