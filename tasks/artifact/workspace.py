"""Where a stage works: a workspace with its finished units, and units of work that commit whole or not at all."""

import contextlib
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from tasks.artifact.lease import Ticket
from tasks.artifact.ledger import (
    check_unit,
    commit,
    commit_unit,
    full_disk_is_said,
    read_ledger,
    read_record,
    read_run,
    require_conserved,
    staging_root,
)
from tasks.artifact.manifest import RUN, Counts, FileEntry, UnitRecord, file_digest, ledger_path
from tasks.storage import is_local, storage_for

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

REJECT_TEXT_CHARS = 2000
ASKED = ".asked"  # in scratch: which earlier units this run goes on from


@dataclass(frozen=True)
class Workspace:
    """Where a stage works: its finished units and the right to commit more. May be sent to worker processes."""

    url: str
    name: str
    scratch: Path
    ticket: Ticket
    code_digest: str
    _notes: dict[str, Any] = field(default_factory=dict, compare=False)
    _owner: int = field(default_factory=os.getpid, compare=False)

    def unit_record(self, key: str) -> UnitRecord | None:
        """The record of a finished unit whose files are all as recorded; otherwise None, and why in the log.

        A run asks for each of its units: one that an earlier run finished and this one does not ask for stops the
        run at its end, because then the work was divided otherwise and rows could be there twice.
        """
        record = read_record(self.url, key)
        return record if record is not None and self._goes_on_from(record) else None

    def finished(self, keys: Iterable[str]) -> set[str]:
        """Those of the units that are finished: what `unit_record` says of each, in few requests for many units."""
        asked = set(keys)
        sizes = storage_for(self.url).find(self.url)
        records = [record for record in read_ledger(self.url) if record.key in asked]
        return {record.key for record in records if self._goes_on_from(record, sizes)}

    def _goes_on_from(self, record: UnitRecord, sizes: Mapping[str, int] | None = None) -> bool:
        small = is_local(self.url)  # of a bucket, the start of the run has seen to it
        if damage := check_unit(self.url, record, small=small, sizes=sizes):
            log.warning("unit %s of %s is redone: %s", record.key, self.url, "; ".join(map(str, damage)))
            return False
        self._ask(record)
        return True

    def unit(self, key: str) -> "Unit":
        """A unit of work, to be used in `with`: committed when the block ends well, forgotten when it raises."""
        return Unit(self, key)

    def units(self) -> list[UnitRecord]:
        """The records of all finished units, by key, with their files verified.

        For what comes after the units; whether one has to be made is asked with `unit_record`.
        """
        return [record for record in read_ledger(self.url) if not check_unit(self.url, record)]

    def asked(self) -> set[str]:
        """Ledger paths of the earlier units that this run, its workers included, has asked for."""
        folder = self.scratch / ASKED
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()

    def _ask(self, record: UnitRecord) -> None:
        if record.token != self.ticket.token:
            (self.scratch / ASKED).mkdir(parents=True, exist_ok=True)
            (self.scratch / ASKED / record.ledger_path).touch()

    def expect_units(self, num_units: int) -> None:
        """Say how many units there will be, so that `plan` can show k of n after an interruption."""
        paper = read_run(self.url).model_copy(update={"units": num_units})
        commit(self.url, self.ticket, [(RUN, paper.to_json())])

    def note(self, **facts: Any) -> None:
        """Keep facts for the manifest: licences=, teachers= (added), tokens=, cost= (replaced), others in `extra`.

        Call it from the stage's `run`, finished units or not; a worker process notes on its units instead.
        """
        if os.getpid() != self._owner:
            raise RuntimeError(
                f"note({', '.join(facts)}) in process {os.getpid()}, but the run belongs to {self._owner}: "
                "a note made in a worker process would be lost. Use unit.note() there, or note in the stage's run."
            )
        for name, value in facts.items():
            if name in ("licences", "teachers"):
                self._notes[name] = sorted(
                    {*self._notes.get(name, []), *([value] if isinstance(value, str) else value)}
                )
            else:
                self._notes[name] = value

    @property
    def notes(self) -> Mapping[str, Any]:
        """What was noted so far."""
        return self._notes


class Unit:
    """One unit of work in the making. Paths are relative to data/; nothing is visible before the block ends."""

    def __init__(self, workspace: Workspace, key: str):
        self.key = key
        self._workspace = workspace
        self._began = time.monotonic()
        self._rows: dict[str, int | None] = {}
        self._counts = Counts()
        self._facts: dict[str, Any] = {}
        self._handles: list[BinaryIO] = []
        self._rejects: Callable[[bytes], Any] | None = None
        self._stack = contextlib.ExitStack()
        self._staging = staging_root(workspace.url, workspace.scratch) / uuid.uuid4().hex

    def __enter__(self) -> Self:
        with full_disk_is_said(self._workspace.url, self._workspace.scratch):
            self._staging.mkdir(parents=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            with full_disk_is_said(self._workspace.url, self._workspace.scratch):
                if error is not None:
                    with contextlib.suppress(OSError):
                        self._close()
                    if isinstance(error, OSError):
                        raise error
                    return
                self._close()
                self._commit()
        finally:
            shutil.rmtree(self._staging, ignore_errors=True)

    def local_file(self, path: str, rows: int | None = None) -> Path:
        """A local path to write one output to, for libraries that want a path. It is taken over at the end."""
        target = self._staging / "data" / _checked(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._rows[path] = rows
        return target

    def open(self, path: str, rows: int | None = None) -> BinaryIO:
        """A binary handle for a big output; closed at the end if the caller does not."""
        handle = self.local_file(path, rows).open("wb")
        self._handles.append(handle)
        return handle

    def set_rows(self, path: str, rows: int) -> None:
        """Say how many rows an output has, once it is known."""
        self._rows[path] = rows

    def write_bytes(self, path: str, data: bytes, rows: int | None = None) -> None:
        """Write one output whole."""
        self.local_file(path, rows).write_bytes(data)

    def write_parquet(self, path: str, table: "pa.Table") -> None:
        """Write one output as Parquet; equal rows give equal bytes."""
        from tasks.shards import parquet_bytes

        self.write_bytes(path, parquet_bytes(table), rows=table.num_rows)

    def write_json(self, path: str, obj: Any) -> None:
        """Write one output as JSON with sorted keys."""
        text = json.dumps(obj, ensure_ascii=False, sort_keys=True, indent=1, allow_nan=False)
        self.write_bytes(path, (text + "\n").encode("utf-8", "surrogatepass"))

    def add_file(self, path: str, local: Path, rows: int | None = None) -> None:
        """Copy a local file in as an output."""
        shutil.copyfile(local, self.local_file(path, rows))

    def count(self, rows_in: int = 0, rows_out: int = 0) -> None:
        """Add to the rows that went in and came out."""
        self._counts += Counts(in_=rows_in, out=rows_out)

    def drop(self, reason: str, row: Mapping[str, Any]) -> None:
        """Count a row as dropped and keep it in rejects/, its texts cut to REJECT_TEXT_CHARS."""
        self._counts += Counts(dropped={reason: 1})
        if self._rejects is None:
            self._rejects = self._open_rejects()
        line = {"unit": self.key, "reason": reason} | {
            f"row_{k}" if k in ("unit", "reason") else k: v for k, v in row.items()
        }
        self._rejects(
            (json.dumps({k: _kept(v) for k, v in line.items()}, ensure_ascii=False) + "\n").encode("utf-8", "replace")
        )

    def note(self, **facts: Any) -> None:
        """Keep JSON facts in the unit's ledger record."""
        self._facts |= facts

    def _open_rejects(self) -> Callable[[bytes], Any]:
        import zstandard

        target = self._staging / "rejects" / self._reject_name
        target.parent.mkdir(parents=True, exist_ok=True)
        file = self._stack.enter_context(target.open("wb"))
        writer = zstandard.ZstdCompressor(level=6).stream_writer(file)
        return self._stack.enter_context(writer).write

    @property
    def _reject_name(self) -> str:
        return ledger_path(self.key).removesuffix(".json") + ".jsonl.zst"

    def _close(self) -> None:
        for handle in self._handles:
            handle.close()
        self._stack.close()

    def _commit(self) -> None:
        require_conserved(self._counts, f"unit {self.key} of {self._workspace.name}")
        entries = {section: self._entries(section) for section in ("data", "rejects")}
        record = UnitRecord(
            key=self.key,
            outputs=entries["data"],
            rejects=entries["rejects"],
            counts=self._counts,
            facts=self._facts,
            code_digest=self._workspace.code_digest,
            token=self._workspace.ticket.token,
            seconds=round(time.monotonic() - self._began, 3),
        )
        files: list[tuple[str, bytes | Path]] = [
            (f"{section}/{entry.path}", self._staging / section / entry.path)
            for section, found in entries.items()
            for entry in found
        ]
        commit_unit(self._workspace.url, self._workspace.ticket, files, record)

    def _entries(self, section: str) -> tuple[FileEntry, ...]:
        root = self._staging / section
        paths = sorted(path for path in root.rglob("*") if path.is_file())
        names = [path.relative_to(root).as_posix() for path in paths]
        if section == "data" and set(self._rows) - set(names):
            raise FileNotFoundError(
                f"unit {self.key!r} announced {sorted(set(self._rows) - set(names))} and did not write them: "
                "an output is what local_file or open named. Write the file, or do not ask for its path."
            )
        return tuple(
            FileEntry(path=name, bytes=path.stat().st_size, sha256=file_digest(str(path)), rows=self._rows.get(name))
            for name, path in zip(names, paths, strict=True)
        )


def _checked(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or any(part.startswith(".") for part in pure.parts):
        raise ValueError(
            f"path={path!r}: an output is a relative path under data/ without '..' and without names that start with "
            "a dot (those are private to the store). Choose another name."
        )
    return path


def _kept(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value[: REJECT_TEXT_CHARS * 4].decode("utf-8", "replace")
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()[:REJECT_TEXT_CHARS]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {str(k): _kept(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_kept(item) for item in value]
    return str(value)[:REJECT_TEXT_CHARS]
