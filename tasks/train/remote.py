"""The remote tier: whole copies of checkpoints in another store, for when this machine or its disk is gone.

REMOTE/RUN/STEP/checkpoint/…   the files of the checkpoint
                metrics.jsonl  the history up to the step
                MANIFEST.json  bytes and sha256 of them all, written last: without it there is no checkpoint
           NEWEST.json         the highest step that was confirmed

RUN is the digest of what the run is made of, so runs of other data or configs never meet here.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.checkpoint import CheckpointError
from tasks.errors import DataFault, HostFault
from tasks.storage import exists, join, normalise, read_all, storage_for

log = logging.getLogger(__name__)

MANIFEST, NEWEST = "MANIFEST.json", "NEWEST.json"
CHECKPOINT, HISTORY = "checkpoint", "metrics.jsonl"
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # between two tries, doubled each time


class StoppedError(Exception):
    """`stop` was called while the store was being waited for."""


class Remote:
    """The copies of one run's checkpoints.

    A store that does not answer (503, a broken connection) is asked again for `patience_s`; a refusal is final at once.
    Both are HostFault then.
    """

    def __init__(self, url: str, patience_s: float):
        self.url = normalise(url)
        self._storage = storage_for(self.url)
        self._patience_s = patience_s
        self._stopped = threading.Event()

    def steps(self) -> list[int]:
        """Steps with a manifest, oldest first."""
        return [step for step in self._folders() if self._try(exists, join(self._step(step), MANIFEST))]

    def newest(self) -> int:
        """The highest step that was confirmed here, 0 without one.

        Raises:
            DataFault: it was written down, but cannot be read.
        """
        found = self._try(read_all, [join(self.url, NEWEST)])[0]
        try:
            return 0 if found is None else int(json.loads(found)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise DataFault(
                f"{join(self.url, NEWEST)} cannot be read ({found!r:.100}): without it nobody knows behind which step "
                f'the run must not go. Write the newest of the steps {self.steps()} into it, as in {{"step": 500}}.'
            ) from error

    def confirm(self, step: int) -> None:
        """Write down that the copy of a step is whole; a lower step than before takes later ones back."""
        self._try(self._storage.write, join(self.url, NEWEST), json.dumps({"step": step}).encode())

    def upload(self, step: int, checkpoint: Path, history: str) -> None:
        """Copy a checkpoint directory; it is whole here when this returns, and not at all before.

        Raises:
            HostFault: the store refuses, did not answer in time, or holds other bytes than it was given.
        """
        url = self._step(step)
        with tempfile.TemporaryDirectory() as scratch:
            (text := Path(scratch, HISTORY)).write_text(history)
            sources = {f"{CHECKPOINT}/{name}": path for name, path in _files(checkpoint).items()} | {HISTORY: text}
            manifest = {"step": step, "files": {name: _entry(path) for name, path in sources.items()}}
            if self._manifest(step) == manifest:
                return
            if step in self._folders():
                self.delete(step)  # half an upload, or the step of a run that was rolled back
            for name, path in sources.items():
                self._try(self._storage.upload, join(url, name), path)
        arrived, sent = self._try(self._storage.find, url), {n: e["bytes"] for n, e in manifest["files"].items()}
        if arrived != sent:
            wrong = sorted(name for name in arrived.keys() | sent.keys() if arrived.get(name) != sent.get(name))
            raise HostFault(
                f"{url} has {len(wrong)} of {len(sent)} files that are not what was copied there, first {wrong[0]} "
                f"({arrived.get(wrong[0])} bytes, {sent.get(wrong[0])} were sent): another program writes there, or "
                "the store loses data. See to it that one run writes below that URL; the same command resumes."
            )
        self._try(self._storage.write, join(url, MANIFEST), _text(manifest))

    def fetch(self, step: int, target: Path) -> str:
        """Copy a checkpoint to the directory `target`, which appears when all of it is verified; returns the history.

        Raises:
            CheckpointError: a file is missing or is not what the manifest says.
        """
        url, manifest = self._step(step), self._manifest(step)
        if manifest is None or manifest.get("step") != step or HISTORY not in manifest.get("files", {}):
            raise CheckpointError(f"{url} has no manifest of step {step} that can be read: it was never whole.")
        staging = target.with_name(f".fetch-{step}")
        shutil.rmtree(staging, ignore_errors=True)
        for name, entry in manifest["files"].items():
            path = staging / name
            try:
                self._try(self._storage.download, join(url, name), path, final=FileNotFoundError)
            except FileNotFoundError:
                found: Any = "is missing"
            else:
                found = _entry(path)
            if found != entry:
                raise CheckpointError(
                    f"{join(url, name)} {found}, its manifest says {entry}: the copy of step {step} is damaged and "
                    "cannot be used. Delete that directory."
                )
            _sync(path)
        history = (staging / HISTORY).read_text()
        os.rename(staging / CHECKPOINT, target)
        shutil.rmtree(staging)
        log.info("fetched step %d from %s", step, url)
        return history

    def delete(self, step: int) -> None:
        """Remove the copy of a step, its manifest first."""
        self._try(self._storage.remove, join(self._step(step), MANIFEST))
        self._try(self._storage.remove_tree, self._step(step))

    def sweep(self) -> None:
        """Remove uploads that were never finished; only for the one process that writes here."""
        self._try(self._storage.sweep, self.url)
        whole = self.steps()
        for step in self._folders():
            if step not in whole:
                self.delete(step)

    def stop(self) -> None:
        """End a wait for the store in another thread."""
        self._stopped.set()

    def _step(self, step: int) -> str:
        return join(self.url, str(step))

    def _folders(self) -> list[int]:
        return sorted(int(name) for name in self._try(self._storage.children, self.url) if name.isdigit())

    def _manifest(self, step: int) -> dict[str, Any] | None:
        data = self._try(read_all, [join(self._step(step), MANIFEST)])[0]
        try:
            found = json.loads(data or b"null")
        except ValueError:
            return None
        return found if isinstance(found, dict) else None

    def _try(self, operation: Callable[..., Any], *args: Any, final: type[Exception] | tuple[()] = ()) -> Any:
        until, wait_s = time.monotonic() + self._patience_s, FIRST_WAIT_S
        while True:
            try:
                return operation(*args)
            except final:
                raise
            except Exception as error:  # whatever the store's driver says
                said = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
                if not self._storage.is_transient(error):
                    raise HostFault(
                        f"{self.url} refused ({operation.__name__}): {said}. Checkpoints must reach it before they "
                        "count as safe. Mend the permissions or the space there, or name another remote; the same "
                        "command resumes."
                    ) from error
                if time.monotonic() + wait_s > until:
                    raise HostFault(
                        f"{self.url} did not answer for {self._patience_s:.0f} s ({operation.__name__}): {said}. "
                        "Checkpoints must reach it before they count as safe. When it is back, the same command "
                        "resumes; confirm_within_s says how long to wait."
                    ) from error
                log.warning("%s: %s; asked again in %.1f s", self.url, said, wait_s)
            if self._stopped.wait(wait_s):
                raise StoppedError
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in sorted(directory.rglob("*")) if path.is_file()}


def _entry(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _text(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, indent=1) + "\n").encode()


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
