"""Artifacts: what stages make. A finished one is found by its fingerprint and verified; a missing one is made, once.

`produce` is the whole protocol: fingerprint, hit or repair or resume, lease, run, conservation law, manifest last.
"""

import contextlib
import datetime
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tasks.artifact.finished import Artifact, cache_root, open_artifact, raise_damage
from tasks.artifact.identity import canonical, code_digest, digest, fingerprint, git_commit
from tasks.artifact.lease import TTL_S, Ticket, hold
from tasks.artifact.ledger import (
    check_unit,
    commit,
    full_disk_is_said,
    read_ledger,
    require_conserved,
    retract,
    staging_root,
)
from tasks.artifact.manifest import (
    CONFIG,
    MANIFEST,
    RUN,
    Counts,
    Damage,
    FileEntry,
    Finding,
    Manifest,
    ParentRef,
    RunPaper,
    UnitRecord,
    content_digest,
    inspect,
)
from tasks.artifact.workspace import ASKED, Workspace
from tasks.config import StageConfig
from tasks.errors import DataFault
from tasks.storage import is_local, join, local_path, normalise, read_all, storage_for

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A function (config, inputs) -> artifact, with what its identity needs."""

    name: str  # folder in the store
    version: str  # bumped by the developer when the meaning of the output changes
    run: Callable[[Workspace, Any, dict[str, Artifact]], None]
    code: tuple[str, ...]  # modules and packages whose digest is recorded
    expensive: bool = False  # stays a hit, with a warning, when only the code digest changed


@dataclass(frozen=True)
class Identity:
    """What a step would make: known before anything runs."""

    url: str
    name: str
    fingerprint: str
    code_digest: str
    config: dict[str, Any]
    config_digest: str
    config_json: bytes
    parents: dict[str, ParentRef]
    licences: tuple[str, ...]
    teachers: tuple[str, ...]


def identify(store: str, stage: Stage, name: str, config: StageConfig, inputs: Mapping[str, Artifact]) -> Identity:
    """The identity of a step's artifact; reads nothing but the code."""
    semantic = canonical(config.semantic())
    parents = {role: _parent(artifact) for role, artifact in inputs.items()}
    print_ = fingerprint(stage.name, stage.version, semantic, {role: p.content_digest for role, p in parents.items()})
    full = json.dumps(canonical(config.model_dump(mode="json")), ensure_ascii=False, sort_keys=True, indent=1) + "\n"
    return Identity(
        url=join(normalise(store), stage.name, f"{_checked_name(name)}-{print_[:12]}"),
        name=name,
        fingerprint=print_,
        code_digest=code_digest(stage.code),
        config=semantic,
        config_digest=digest(semantic),
        config_json=full.encode(),
        parents=parents,
        licences=tuple(sorted({licence for a in inputs.values() for licence in a.manifest.licences})),
        teachers=tuple(sorted({teacher for a in inputs.values() for teacher in a.manifest.teachers})),
    )


def produce(
    store: str,
    stage: Stage,
    name: str,
    config: StageConfig,
    inputs: dict[str, Artifact],
    *,
    rerun: bool = False,
    lease_ttl_s: float = TTL_S,
    lease_timeout_s: float | None = None,
) -> Artifact:
    """The artifact of a step: found and verified, or repaired, resumed or made.

    Args:
        rerun: make it again although it is finished.
        lease_timeout_s: how long to wait for another run that is making it; None waits as long as that run lives.

    Raises:
        ConservationError: the stage lost rows; no manifest is written.
        LeaseTimeout, LeaseLost: another run is making the artifact.
        StoreFull: the disk is full; finished units are kept.
    """
    identity = identify(store, stage, name, config, inputs)
    scratch = scratch_dir(identity.url)
    if not rerun and (found := _hit(stage, identity)) and not scratch.exists():
        return found
    with (
        _terminates_cleanly(),
        full_disk_is_said(identity.url, scratch),
        hold(identity.url, ttl_s=lease_ttl_s, timeout_s=lease_timeout_s) as lease,
    ):
        if not rerun and (found := _hit(stage, identity)):
            _tidy(identity.url, scratch, lease.ticket)  # its run died after the manifest
            return found
        return _make(
            stage,
            identity,
            config,
            inputs,
            Workspace(identity.url, name, scratch, lease.ticket, identity.code_digest),
            rerun,
        )


def scratch_dir(url: str) -> Path:
    """The local directory for temporary and resumable state of one artifact.

    $NESTLING_SCRATCH when set; else `.scratch` in a local store; else the user's cache directory.
    """
    parent, leaf = url.rsplit("/", 1)
    root, stage = parent.rsplit("/", 1)
    leaf = f"{stage}-{leaf}"
    if os.environ.get("NESTLING_SCRATCH"):
        return (
            Path(os.environ["NESTLING_SCRATCH"]).absolute() / f"{hashlib.sha256(root.encode()).hexdigest()[:8]}-{leaf}"
        )
    if is_local(url):
        return local_path(root) / ".scratch" / leaf
    return cache_root() / "scratch" / f"{hashlib.sha256(root.encode()).hexdigest()[:8]}-{leaf}"


def unusable(stage: Stage, identity: Identity, finding: Finding) -> list[str]:
    """Why what stands at the artifact's URL is not a hit; empty when it is one."""
    manifest = finding.manifest
    problems = [str(damage) for damage in finding.damage]
    if manifest is not None and manifest.fingerprint != identity.fingerprint:
        problems.append(f"fingerprint {manifest.fingerprint[:16]}, {identity.fingerprint[:16]} expected")
    elif manifest is not None and manifest.code_digest != identity.code_digest and not stage.expensive:
        problems.append(code_changed(manifest))
    return problems


def code_changed(manifest: Manifest) -> str:
    """The reason of a rerun (or of a warning) when only the code differs."""
    commit_ = f", commit {manifest.git_commit[:12]}" if manifest.git_commit else ""
    return f"code changed since {manifest.finished or 'it was made'}{commit_} (same version {manifest.version!r})"


def _hit(stage: Stage, identity: Identity) -> Artifact | None:
    finding = inspect(identity.url)
    problems = unusable(stage, identity, finding)
    if problems:
        log.warning("%s is made again or repaired: %s", identity.url, "; ".join(problems))
        return None
    if finding.manifest is None:
        return None
    if finding.manifest.code_digest != identity.code_digest:
        log.warning(
            "%s is used although its %s. Say --rerun %s, or bump the stage's version, if the change matters",
            identity.url,
            code_changed(finding.manifest),
            stage.name,
        )
    log.info(
        "%s is there: %d files, %s bytes", identity.url, len(finding.manifest.files), f"{finding.manifest.bytes:,}"
    )
    return Artifact(identity.url, finding.manifest)


def _make(
    stage: Stage,
    identity: Identity,
    config: StageConfig,
    inputs: dict[str, Artifact],
    workspace: Workspace,
    rerun: bool,
) -> Artifact:
    for artifact in inputs.values():
        if open_artifact(artifact.url).manifest.content_digest != artifact.manifest.content_digest:
            raise_damage(artifact.url, [Damage("data", "its content has changed since this run read its manifest")])
    url, scratch, ticket = workspace.url, workspace.scratch, workspace.ticket
    shutil.rmtree(staging_root(url, scratch), ignore_errors=True)  # units of a run that died
    storage_for(url).sweep(url)
    commit(url, ticket, [(RUN, RunPaper(parents=identity.parents).to_json())])
    _retract_unusable(stage, identity, ticket, rerun)
    if rerun:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(scratch / ASKED, ignore_errors=True)
    scratch.mkdir(parents=True, exist_ok=True)
    commit(url, ticket, [(CONFIG, identity.config_json)])
    began = time.monotonic()
    stage.run(workspace, config, inputs)
    manifest = _manifest(stage, identity, workspace, time.monotonic() - began)
    commit(url, ticket, [(MANIFEST, manifest.to_json())])
    _tidy(url, scratch, ticket)
    log.info("%s made: %s rows in, %s out, %.0f s", url, manifest.counts.in_, manifest.counts.out, manifest.seconds)
    return Artifact(url, manifest)


def _tidy(url: str, scratch: Path, ticket: Ticket) -> None:
    """Remove what only an unfinished artifact needs."""
    retract(url, ticket, [RUN])
    shutil.rmtree(staging_root(url, scratch), ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _retract_unusable(stage: Stage, identity: Identity, ticket: Ticket, rerun: bool) -> None:
    """Take back the manifest and the records of the units that must be made again; everything else stays."""
    url = identity.url
    storage = storage_for(url)
    sizes = storage.find(url)
    paths = [path.removeprefix("ledger/") for path in sizes if path.startswith("ledger/")]
    records = {record.ledger_path: record for record in read_ledger(url)}
    retracted: dict[str, str] = {path: "its record is damaged" for path in paths if path not in records}
    for path, record in records.items():
        if rerun:
            retracted[path] = "a rerun was asked for"
        elif record.code_digest != identity.code_digest and not stage.expensive:
            retracted[path] = "the code changed"
        elif damage := check_unit(url, record, sizes=sizes):
            retracted[path] = "; ".join(map(str, damage))
        elif record.code_digest != identity.code_digest:
            log.warning("unit %s of %s was made by other code and is kept (expensive stage)", record.key, url)
    for path, reason in retracted.items():
        log.warning("unit %s of %s is redone: %s", records[path].key if path in records else path, url, reason)
    retract(url, ticket, [MANIFEST, *(f"ledger/{path}" for path in retracted)])


def _manifest(stage: Stage, identity: Identity, workspace: Workspace, seconds: float) -> Manifest:
    """The papers of a finished run.

    Raises:
        ConservationError, DamagedArtifact: it is not finished after all.
    """
    url, storage = identity.url, storage_for(identity.url)
    records = read_ledger(url)
    if not records:
        raise DataFault(
            f"{url}: stage {stage.name!r} ended without a unit of work from {len(identity.parents)} inputs: an "
            "empty artifact would be taken for a finished one. Check that the inputs hold what the stage reads."
        )
    token = workspace.ticket.token
    _require_asked(url, [r for r in records if r.token != token and r.ledger_path not in workspace.asked()])
    sizes = storage.find(url)
    damage = [d for record in records for d in check_unit(url, record, sizes=sizes, small=record.token != token)]
    if damage:
        raise_damage(url, damage)
    counts = sum((record.counts for record in records), Counts())
    require_conserved(counts, url)
    files = _collect(url, [(record.key, record.outputs) for record in records])
    rejects = _collect(url, [(record.key, record.rejects) for record in records])
    papers = [record.ledger_path for record in records]
    contents = read_all([join(url, "ledger", path) for path in papers])
    ledger = [_entry(path, data or b"") for path, data in zip(papers, contents, strict=True)]
    known = {
        f"{part}/{entry.path}"
        for part, es in (("data", files), ("rejects", rejects), ("ledger", ledger))
        for entry in es
    }
    orphans = [p for p in sizes if p.startswith(("data/", "rejects/", "ledger/")) and p not in known]
    if orphans:
        log.warning("%s: removing %d files of no finished unit: %s", url, len(orphans), ", ".join(orphans[:5]))
        retract(url, workspace.ticket, orphans)
    notes = dict(workspace.notes)
    return Manifest(
        stage=stage.name,
        name=identity.name,
        version=stage.version,
        fingerprint=identity.fingerprint,
        parents=identity.parents,
        config=identity.config,
        config_digest=identity.config_digest,
        code_digest=identity.code_digest,
        git_commit=git_commit(),
        files=tuple(files),
        rejects=tuple(rejects),
        ledger=tuple(ledger),
        config_file=_entry(CONFIG, identity.config_json),
        content_digest=content_digest(files),
        counts=counts,
        licences=tuple(sorted({*identity.licences, *notes.pop("licences", ())})),
        teachers=tuple(sorted({*identity.teachers, *notes.pop("teachers", ())})),
        tokens=notes.pop("tokens", None),
        bytes=sum(entry.bytes for entry in files),
        seconds=round(seconds + sum(record.seconds for record in records if record.token != token), 3),
        cost=notes.pop("cost", 0.0),
        host=f"{socket.gethostname()} ({os.cpu_count()} cores)",
        finished=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        token=token,
        extra=notes,
    )


def _require_asked(url: str, forgotten: list[UnitRecord]) -> None:
    if forgotten:
        raise DataFault(
            f"{url}: {len(forgotten)} units that an earlier run finished ({', '.join(r.key for r in forgotten[:5])}) "
            "were not asked for by this one: the work is divided otherwise than before, so rows could be there twice. "
            "Run it again with --rerun, or with the code and settings of the earlier run."
        )


def _collect(url: str, units: list[tuple[str, tuple[FileEntry, ...]]]) -> list[FileEntry]:
    owners: dict[str, str] = {}
    for key, entries in units:
        for entry in entries:
            if entry.path in owners:
                raise DataFault(
                    f"{url}: units {owners[entry.path]!r} and {key!r} both wrote {entry.path!r}: the later one wins, "
                    "so the result would depend on order. Give each unit its own paths."
                )
            owners[entry.path] = key
    return sorted((entry for _, entries in units for entry in entries), key=lambda entry: entry.path)


def _entry(path: str, data: bytes) -> FileEntry:
    return FileEntry(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def _parent(artifact: Artifact) -> ParentRef:
    manifest = artifact.manifest
    return ParentRef(url=artifact.url, fingerprint=manifest.fingerprint, content_digest=manifest.content_digest)


def _checked_name(name: str) -> str:
    if not name or name.startswith(".") or "/" in name:
        raise ValueError(f"name={name!r}: an artifact's name is one folder name. Use letters, digits, '-' and '.'.")
    return name


@contextlib.contextmanager
def _terminates_cleanly() -> Iterator[None]:
    """Let SIGTERM unwind the stack, so that the lease is given back; only where nobody else handles it."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
