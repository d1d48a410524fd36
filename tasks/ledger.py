"""The ledger: finished units of work, and the workspace in which a stage makes them.

A unit's outputs, rejects and counts are committed together; its small JSON record is written last and says that it is
finished. A run that is killed at any moment loses at most the units in flight.
"""

import contextlib
import errno
import json
import logging
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from tasks.errors import DataFault, HostFault
from tasks.lease import Ticket
from tasks.manifest import Counts, Damage, FileEntry, UnitRecord, check_files, file_digest, ledger_path
from tasks.storage import ABSENT, is_local, join, local_path, storage_for

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

REJECT_TEXT_CHARS = 2000
NOTES = ("licences", "teachers", "tokens", "cost")


class ConservationError(DataFault):
    """Rows went in that neither came out nor were dropped with a reason (or came from nowhere)."""


class StoreFull(HostFault):
    """The disk (or quota) is full. Everything that was finished is kept."""


def require_conserved(counts: Counts, what: str) -> None:
    """The conservation law of a stage.

    Raises:
        ConservationError: rows in are not rows out plus rows dropped.
    """
    if not counts.is_conserved:
        dropped = sum(counts.dropped.values())
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in sorted(counts.dropped.items())) or "none"
        raise ConservationError(
            f"{what}: {counts.in_:,} rows in, {counts.out:,} out, {dropped:,} dropped ({reasons}); "
            f"{counts.in_ - counts.out - dropped:+,} unaccounted for. Rows in must be rows out plus rows dropped by "
            "reason, because silent loss is the most expensive fault; nothing was committed. "
            "Count every row that the stage skips with unit.drop(reason, row)."
        )


@contextlib.contextmanager
def full_disk_is_said(url: str, scratch: Path) -> Iterator[None]:
    """Turn 'no space left' from anywhere inside into an error that says where, why and what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        places = [place for place in (local_path(url) if is_local(url) else None, scratch) if place is not None]
        free = "; ".join(f"{place}: {_free(place)} free" for place in places)
        raise StoreFull(
            f"No space left for {error.filename or url} ({free}). A unit is committed whole or not at all; "
            "all units finished before are kept. Free some space (`nestling gc` lists what no preset needs), or set "
            "NESTLING_STORE or NESTLING_SCRATCH to a larger disk, and run the same command again: it resumes."
        ) from error


def _free(place: Path) -> str:
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return f"{shutil.disk_usage(place).free / 2**20:,.0f} MiB"
    except OSError:
        return "unknown space"


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
        """The record of a finished unit whose files are all as recorded; otherwise None, and why in the log."""
        record = read_record(self.url, key)
        if record is None:
            return None
        damage = check_unit(self.url, record)
        if damage:
            log.warning("unit %s of %s is redone: %s", key, self.url, "; ".join(map(str, damage)))
            return None
        return record

    def unit(self, key: str) -> "Unit":
        """A unit of work, to be used in `with`: committed when the block ends well, forgotten when it raises."""
        return Unit(self, key)

    def units(self) -> list[UnitRecord]:
        """The records of all finished units, by key, with their files verified."""
        return [record for record in read_ledger(self.url) if not check_unit(self.url, record)]

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
        commit(
            self._workspace.url, self._workspace.ticket, [*files, (f"ledger/{record.ledger_path}", record.to_json())]
        )

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


def commit(url: str, ticket: Ticket, files: list[tuple[str, bytes | Path]]) -> None:
    """Put files in place in this order, each only while the lease is ours.

    The version of each target is read before the lease is, and each write demands that version. So a write that
    succeeds came before any write of a successor, and a late one fails.

    Raises:
        LeaseLost: another run has taken the artifact over.
    """
    storage = storage_for(url)
    with storage.guard(url):
        for path, source in files:
            target = join(url, path)
            while True:
                version = storage.version(target)
                ticket.check()
                if storage.write_if(target, source, version):
                    break


def retract(url: str, ticket: Ticket, paths: list[str]) -> None:
    """Remove files in this order, each only while the lease is ours (see `commit`)."""
    storage = storage_for(url)
    with storage.guard(url):
        for path in paths:
            while (version := storage.version(join(url, path))) != ABSENT:
                ticket.check()
                if storage.remove_if(join(url, path), version):
                    break


def read_record(url: str, key: str) -> UnitRecord | None:
    """The record of a unit, or None when there is none or it is damaged (said in the log)."""
    path = join(url, "ledger", ledger_path(key))
    try:
        record = UnitRecord.from_json(storage_for(url).read(path))
    except FileNotFoundError:
        return None
    except ValueError as error:
        log.warning("unit %s of %s is redone: %s", key, url, error)
        return None
    return record if record.key == key else None


def read_ledger(url: str) -> list[UnitRecord]:
    """All sound records of an artifact's ledger, by key."""
    records: list[UnitRecord] = []
    for path in storage_for(url).find(join(url, "ledger")):
        try:
            record = UnitRecord.from_json(storage_for(url).read(join(url, "ledger", path)))
        except (ValueError, FileNotFoundError) as error:
            log.warning("%s: %s", join(url, "ledger", path), error)
            continue
        if record.ledger_path == path:
            records.append(record)
    return sorted(records, key=lambda record: record.key)


def check_unit(
    url: str, record: UnitRecord, *, small: bool = True, sizes: Mapping[str, int] | None = None
) -> list[Damage]:
    """What is wrong with a finished unit's files; the sha256 of small files is left out on request."""
    expected = {f"data/{e.path}": e for e in record.outputs} | {f"rejects/{e.path}": e for e in record.rejects}
    if sizes is None:
        sizes = {path: size for path in expected if (size := _size(join(url, path))) is not None}
    return check_files(url, expected, small=small, sizes=sizes)


def staging_root(url: str, scratch: Path) -> Path:
    """Where units are made: on the store's own disk, so that a rename commits them; for a bucket, in scratch."""
    return local_path(url) / ".staging" if is_local(url) else scratch / ".staging"


def _size(url: str) -> int | None:
    return storage_for(url).size(url)


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
