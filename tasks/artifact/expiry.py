"""What nobody needs any more: expiry by reachability and age, and the remains of runs that died."""

import contextlib
import datetime
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.artifact.finished import cache_root
from tasks.artifact.lease import LeaseTimeout, hold, is_held, read_lease
from tasks.artifact.ledger import read_run, retract
from tasks.artifact.lineage import locate, read_manifest
from tasks.artifact.manifest import CONFIG, LEASE, MANIFEST, RUN, Manifest, ParentRef
from tasks.artifact.stage import scratch_dir
from tasks.errors import ConfigError
from tasks.storage import exists, is_local, join, local_path, normalise, storage_for

TEMPORARY_AGE_S = 3600.0  # a temporary file of a live writer is seconds old


@dataclass(frozen=True)
class Removal:
    """Something that may go (or has gone)."""

    url: str
    kind: str  # artifact, unfinished, scratch, staging, download
    bytes: int
    age_s: float
    reason: str


@dataclass(frozen=True)
class Collection:
    """What `gc` found; `deleted` says whether it has also removed it."""

    removals: tuple[Removal, ...]
    kept: int
    kept_bytes: int
    held: tuple[str, ...]  # artifacts that a live run is making: never touched
    deleted: bool

    @property
    def bytes(self) -> int:
        return sum(removal.bytes for removal in self.removals)


@dataclass(frozen=True)
class _Entry:
    url: str
    manifest: Manifest | None
    bytes: int
    age_s: float
    is_held: bool


def gc(store: str, roots: Sequence[str], older_than_s: float, *, dry_run: bool = True) -> Collection:
    """Find (and, unless `dry_run`, remove) artifacts that no root reaches and that are older than `older_than_s`.

    Kept are the roots, what is younger, what is being made, and all ancestors of these. Leftover scratch and staging
    of finished or removed artifacts goes too.

    Raises:
        ConfigError: a root is not a finished artifact, so that what it needs cannot be known.
    """
    store = normalise(store)
    entries = {entry.url: entry for entry in _entries(store)}
    keep = {normalise(root) for root in roots}
    for root in sorted(keep):
        if not exists(join(root, MANIFEST)):
            raise ConfigError(
                f"root {root} is not a finished artifact, so nobody can say what it needs; nothing was removed. "
                "Correct it, or finish that run first."
            )
    keep |= {entry.url for entry in entries.values() if entry.is_held or entry.age_s <= older_than_s}
    keep = _with_ancestors(keep)
    removals = [_removal(entry) for entry in entries.values() if entry.url not in keep]
    held = [entry.url for entry in entries.values() if entry.is_held]
    if not dry_run:
        held += [removal.url for removal in removals if not _remove_artifact(removal.url)]
        removals = [removal for removal in removals if removal.url not in held]
    gone = {removal.url for removal in removals}
    for removal in _leftovers(store, entries, gone, older_than_s):
        removals.append(removal)
        if not dry_run:
            shutil.rmtree(removal.url, ignore_errors=True)
    kept = [entry for url, entry in entries.items() if url not in gone]
    return Collection(
        tuple(removals), len(kept), sum(entry.bytes for entry in kept), tuple(sorted(held)), deleted=not dry_run
    )


def render_gc(found: Collection) -> str:
    """A line each, the largest first, and the totals."""
    lines = [
        f"{item.kind:10} {_megabytes(item.bytes):>10}  {item.age_s / 86400:5.1f} days  {item.url}  ({item.reason})"
        for item in sorted(found.removals, key=lambda item: -item.bytes)
    ]
    lines += [f"held       {url}  (a run is making it)" for url in found.held]
    verb = "removed" if found.deleted else "would remove"
    lines.append(
        f"{verb} {len(found.removals)} ({_megabytes(found.bytes)}), "
        f"kept {found.kept} artifacts ({_megabytes(found.kept_bytes)})"
    )
    if not found.deleted and found.removals:
        lines.append("nothing was removed: say --delete to do it")
    return "\n".join(lines)


def _entries(store: str) -> list[_Entry]:
    storage = storage_for(store)
    return [
        _entry(join(store, stage, leaf))
        for stage in storage.children(store)
        for leaf in storage.children(join(store, stage))
    ]


def _entry(url: str) -> _Entry:
    storage = storage_for(url)
    sizes = storage.find(url)
    manifest = None
    with contextlib.suppress(ValueError, FileNotFoundError):
        manifest = read_manifest(url)
    if manifest is not None and manifest.finished:
        written = datetime.datetime.fromisoformat(manifest.finished).timestamp()
    else:
        papers = [path for path in sizes if path in (CONFIG, LEASE) or path.startswith("ledger/")] or list(sizes)
        written = max((storage.modified(join(url, path)) for path in papers), default=0.0)
    return _Entry(url, manifest, sum(sizes.values()), max(0.0, time.time() - written), is_held(url))


def _with_ancestors(urls: set[str]) -> set[str]:
    """The artifacts and all that they were, or are being, made from.

    Raises:
        ConfigError: the papers of one are damaged or not yet written, so that its parents cannot be known.
    """
    found: set[str] = set()
    waiting = sorted(urls)
    while waiting:
        url = waiting.pop()
        if url not in found:
            found.add(url)
            waiting += [locate(parent, url) for parent in _parents(url)]
    return found


def _parents(url: str) -> list[ParentRef]:
    parents = list(read_run(url).parents.values())
    if not exists(join(url, MANIFEST)):
        if not parents and is_held(url) and not exists(join(url, RUN)):
            raise _unknown(url, "is just being begun")
        return parents
    try:
        return parents + list(read_manifest(url).parents.values())
    except ValueError as error:
        raise _unknown(url, str(error)) from error


def _unknown(url: str, problem: str) -> ConfigError:
    return ConfigError(
        f"{url}: {problem}. What it was made from must be kept and cannot be known; nothing was removed. "
        "Run the step that makes it, or remove that folder, and try again."
    )


def _removal(entry: _Entry) -> Removal:
    kind = "artifact" if entry.manifest else "unfinished"
    return Removal(entry.url, kind, entry.bytes, entry.age_s, "no root reaches it")


def _remove_artifact(url: str) -> bool:
    """Remove an artifact under its lease, the manifest first; False when a run has just begun to make it."""
    storage = storage_for(url)
    try:
        with hold(url, timeout_s=0) as lease:
            retract(url, lease.ticket, [MANIFEST])
            retract(url, lease.ticket, [path for path in storage.find(url) if path != LEASE])
    except LeaseTimeout:
        return False
    with storage.guard(url):
        state, version = read_lease(url)
        if state is not None and state.released and storage.remove_if(join(url, LEASE), version) and is_local(url):
            shutil.rmtree(local_path(url), ignore_errors=True)
    return True


def _leftovers(store: str, entries: dict[str, _Entry], gone: set[str], older_than_s: float) -> list[Removal]:
    """Local directories that no live run and no unfinished artifact can want."""
    unfinished = [url for url, entry in entries.items() if entry.is_held or not (entry.manifest or url in gone)]
    wanted = {scratch_dir(url) for url in unfinished}
    found = [
        _measured(path, "scratch", "of no unfinished artifact") for path in _scratch_dirs(store) if path not in wanted
    ]
    if is_local(store):
        idle = [url for url, entry in entries.items() if not entry.is_held and url not in gone]
        staging = [_measured(local_path(url) / ".staging", "staging", "its run is dead") for url in idle]
        found += [removal for removal in staging if removal.bytes]
    found = [removal for removal in found if removal.age_s > min(older_than_s, TEMPORARY_AGE_S)]
    downloads = cache_root() / "objects"
    if not is_local(store) and downloads.is_dir():
        copies = [_measured(path, "download", "a copy, fetched again when read") for path in downloads.iterdir()]
        found += [removal for removal in copies if removal.age_s > older_than_s]
    return found


def _scratch_dirs(store: str) -> list[Path]:
    """All scratch directories of a store on this machine: siblings of where one of its artifacts would have its own."""
    example = scratch_dir(join(store, "stage", "name"))
    mark = example.name.removesuffix("stage-name")
    if not example.parent.is_dir():
        return []
    return sorted(path for path in example.parent.iterdir() if path.is_dir() and path.name.startswith(mark))


def _measured(path: Path, kind: str, reason: str) -> Removal:
    files = [item.stat() for item in path.rglob("*") if item.is_file()]
    written = max((stat.st_mtime for stat in files), default=path.stat().st_mtime if path.exists() else 0.0)
    return Removal(str(path), kind, sum(stat.st_size for stat in files), max(0.0, time.time() - written), reason)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
