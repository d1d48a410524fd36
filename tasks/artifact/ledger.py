"""The ledger: what is finished, how it is committed, and the law that no row is lost.

A unit's outputs, rejects and counts are committed together; its small JSON record is written last and says that it is
finished. A run that is killed at any moment loses at most the units in flight.
"""

import contextlib
import errno
import logging
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.artifact.lease import Ticket
from tasks.artifact.manifest import RUN, Counts, Damage, RunPaper, UnitRecord, check_files, ledger_path
from tasks.errors import DataFault, HostFault
from tasks.storage import ABSENT, is_local, join, local_path, read_all, storage_for

log = logging.getLogger(__name__)


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


def commit_unit(url: str, ticket: Ticket, files: list[tuple[str, bytes | Path]], record: UnitRecord) -> None:
    """Put a unit's files in place, then its record, which says that it is finished.

    Where two workers of one run do the same unit (a cluster gives the shard of a node that it lost to another one, and
    the lost one may still live), the first record stays: a manifest that lists it is true, however late the other is.

    Raises:
        LeaseLost: another run has taken the artifact over.
    """
    storage, target = storage_for(url), join(url, "ledger", record.ledger_path)
    commit(url, ticket, files)
    with storage.guard(url):
        while True:
            version = storage.version(target)
            ticket.check()
            if version != ABSENT and _is_twin(read_record(url, record.key), record):
                return
            if storage.write_if(target, record.to_json(), version):
                return


def _is_twin(found: UnitRecord | None, record: UnitRecord) -> bool:
    """Whether the two say the same of the same run's unit; only the time they took may differ."""
    return found is not None and found.model_copy(update={"seconds": record.seconds}) == record


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
    paths = list(storage_for(url).find(join(url, "ledger")))
    records: list[UnitRecord] = []
    for path, data in zip(paths, read_all([join(url, "ledger", path) for path in paths]), strict=True):
        try:
            record = UnitRecord.from_json(data or b"")
        except ValueError as error:
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


def read_run(url: str) -> RunPaper:
    """What is known of the unfinished run at an artifact's URL; an empty paper when nothing is."""
    try:
        return RunPaper.from_json(storage_for(url).read(join(url, RUN)))
    except (FileNotFoundError, ValueError):
        return RunPaper()


def staging_root(url: str, scratch: Path) -> Path:
    """Where units are made: on the store's own disk, so that a rename commits them; for a bucket, in scratch."""
    return local_path(url) / ".staging" if is_local(url) else scratch / ".staging"


def _size(url: str) -> int | None:
    return storage_for(url).size(url)
