"""Which files of an input are for training, which are held out, and an order that no one chose."""

import hashlib

from tasks.artifact import Artifact
from tasks.errors import ConfigError

TRAINING = ("train/", "docs/")  # what dedup and instruct write; what synth writes


def training_folder(artifact: Artifact) -> str:
    """The prefix of the shards to train on; never the held-out ones.

    Raises:
        ConfigError: the artifact holds neither documents nor conversations to train on.
    """
    for prefix in TRAINING:
        if artifact.files(prefix):
            return prefix
    raise ConfigError(
        f"{artifact.url} has no shards under {' or '.join(TRAINING)}, its files are "
        f"{[entry.path for entry in artifact.files()][:5]}: pack reads what dedup, synth or instruct made. "
        "Give the reference of such a step, for example ingest/tiny:ja."
    )


def training_shards(artifact: Artifact) -> list[str]:
    """Paths of the Parquet shards to train on, in order."""
    return [entry.path for entry in artifact.files(training_folder(artifact)) if entry.path.endswith(".parquet")]


def heldout_shards(artifact: Artifact) -> list[str]:
    """Paths of the Parquet shards that are for evaluation only; empty for synthetic documents."""
    return [entry.path for entry in artifact.files("heldout/") if entry.path.endswith(".parquet")]


def rank(key: str) -> int:
    """A place in an order that depends on nothing but the id: a part of it is a fair sample."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")
