"""The papers of an artifact: manifest, ledger records, and the check that the files are what the papers say."""

import hashlib
import itertools
import json
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from tasks.artifact.identity import digest
from tasks.storage import READ_THREADS, is_local, join, local_path, storage_for

MANIFEST = "MANIFEST.json"
CONFIG = "config.json"
LEASE = "lease.json"
RUN = "run.json"  # of a run that is not finished: its parents and how many units it expects
SMALL_BYTES = 8 * 2**20  # up to this size a file's sha256 is checked at every hit
REMOTE_BUDGET_BYTES = 64 * 2**20  # what one check may download from a bucket, smallest files first


class FileEntry(BaseModel):
    """One file of an artifact; the path is relative to its section (data/, rejects/, ledger/)."""

    model_config = ConfigDict(frozen=True)

    path: str
    bytes: int
    sha256: str
    rows: int | None = None


class Counts(BaseModel):
    """Rows in, rows out, and rows dropped by reason. `in` is a Python word, hence `in_`; JSON says `in`."""

    model_config = ConfigDict(frozen=True)

    in_: int = Field(default=0, serialization_alias="in", validation_alias=AliasChoices("in", "in_"))
    out: int = 0
    dropped: dict[str, int] = {}

    def __add__(self, other: "Counts") -> "Counts":
        reasons = sorted(self.dropped.keys() | other.dropped.keys())
        dropped = {reason: self.dropped.get(reason, 0) + other.dropped.get(reason, 0) for reason in reasons}
        return Counts(in_=self.in_ + other.in_, out=self.out + other.out, dropped=dropped)

    @property
    def is_conserved(self) -> bool:
        """Whether every row that went in came out or was dropped with a reason."""
        return self.in_ == self.out + sum(self.dropped.values())


class ParentRef(BaseModel):
    """The artifact that an input was, by place and by content."""

    model_config = ConfigDict(frozen=True)

    url: str
    fingerprint: str
    content_digest: str


class Sealed(BaseModel):
    """A JSON paper that carries the digest of itself, so that one flipped bit shows."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> bytes:
        body = json.loads(self.model_dump_json(by_alias=True))
        return (json.dumps(body | {"seal": digest(body)}, ensure_ascii=False, indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """The paper.

        Raises:
            ValueError: it is damaged: not JSON, not this kind of paper, or not what was sealed.
        """
        try:
            body = json.loads(data)
            seal = body.pop("seal", None)
            if seal != digest(body):
                raise ValueError(f"its seal is {str(seal)[:12]}, its content says {digest(body)[:12]}")
            return cls.model_validate(body)
        except (ValueError, TypeError, AttributeError, ValidationError) as error:
            raise ValueError(f"{cls.__name__} is damaged ({len(data):,} bytes): {_first_line(error)}") from error


class UnitRecord(Sealed):
    """One finished unit of work: what it wrote, what it counted, what it noted, and who was entitled to commit it."""

    key: str
    outputs: tuple[FileEntry, ...] = ()
    rejects: tuple[FileEntry, ...] = ()
    counts: Counts = Counts()
    facts: dict[str, Any] = {}
    code_digest: str = ""
    token: int = 0
    seconds: float = 0.0

    @property
    def ledger_path(self) -> str:
        return ledger_path(self.key)


class Manifest(Sealed):
    """Written last; its presence (and soundness) means that the artifact is finished."""

    format: int = 1
    stage: str
    name: str
    version: str
    fingerprint: str
    parents: dict[str, ParentRef] = {}
    config: dict[str, Any] = {}
    config_digest: str
    code_digest: str
    git_commit: str = ""
    files: tuple[FileEntry, ...] = ()
    rejects: tuple[FileEntry, ...] = ()
    ledger: tuple[FileEntry, ...] = ()
    config_file: FileEntry
    content_digest: str
    counts: Counts = Counts()
    licences: tuple[str, ...] = ()
    teachers: tuple[str, ...] = ()
    tokens: int | None = None
    bytes: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    host: str = ""
    finished: str = ""  # ISO 8601, UTC
    token: int = 0
    extra: dict[str, Any] = {}

    def sections(self) -> dict[str, FileEntry]:
        """Every file that belongs to the artifact: path relative to the artifact -> entry."""
        named = [("data", self.files), ("rejects", self.rejects), ("ledger", self.ledger)]
        return {CONFIG: self.config_file} | {f"{part}/{e.path}": e for part, entries in named for e in entries}


class RunPaper(Sealed):
    """Written when a run begins, removed after its manifest: what `plan` and `gc` know of unfinished work."""

    parents: dict[str, ParentRef] = {}
    units: int | None = None  # how many the stage expects; None when it has not said


@dataclass(frozen=True)
class Damage:
    """A file that is not what the papers say."""

    path: str  # relative to the artifact
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}"


@dataclass(frozen=True)
class Finding:
    """What stands at an artifact's URL: a sound manifest, or none, and what is wrong."""

    manifest: Manifest | None = None
    damage: tuple[Damage, ...] = field(default_factory=tuple)

    @property
    def is_sound(self) -> bool:
        return self.manifest is not None and not self.damage


def inspect(url: str, *, deep: bool = False) -> Finding:
    """Read the manifest at an artifact's URL and check all files against it.

    Sizes are always checked, sha256 of files up to SMALL_BYTES (of a bucket: up to REMOTE_BUDGET_BYTES in all),
    and of everything when `deep`.
    """
    try:
        data = storage_for(url).read(join(url, MANIFEST))
    except FileNotFoundError:
        return Finding()
    try:
        manifest = Manifest.from_json(data)
    except ValueError as error:
        return Finding(None, (Damage(MANIFEST, str(error)),))
    return Finding(manifest, tuple(check_files(url, manifest.sections(), deep=deep)))


def check_files(
    url: str,
    expected: Mapping[str, FileEntry],
    *,
    small: bool = True,
    deep: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> list[Damage]:
    """Which of the expected files (paths relative to `url`) are missing or differ."""
    storage = storage_for(url)
    sizes = storage.find(url) if sizes is None else sizes
    damage: list[Damage] = []
    to_hash: list[tuple[int, str]] = []
    for path, entry in expected.items():
        if path not in sizes:
            damage.append(Damage(path, f"missing, {entry.bytes:,} bytes expected"))
        elif sizes[path] != entry.bytes:
            damage.append(Damage(path, f"{sizes[path]:,} bytes, {entry.bytes:,} expected"))
        elif deep or (small and entry.bytes <= SMALL_BYTES):
            to_hash.append((entry.bytes, path))
    remote = not is_local(url) and not url.startswith("memory://")
    if remote and not deep:
        ends = itertools.accumulate(size for size, _ in sorted(to_hash))
        to_hash = [item for item, end in zip(sorted(to_hash), ends, strict=True) if end <= REMOTE_BUDGET_BYTES]
    for path, actual in _digests(url, [path for _, path in to_hash], parallel=remote):
        if actual != expected[path].sha256:
            damage.append(Damage(path, f"sha256 {actual[:12]}, {expected[path].sha256[:12]} expected"))
    return sorted(damage, key=lambda item: item.path)


def _digests(url: str, paths: list[str], *, parallel: bool) -> Iterator[tuple[str, str]]:
    if not parallel:
        yield from ((path, file_digest(join(url, path))) for path in paths)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(READ_THREADS) as pool:
        yield from zip(paths, pool.map(lambda path: file_digest(join(url, path)), paths), strict=True)


def file_digest(url: str) -> str:
    """sha256 of a file, in pieces when it is local."""
    try:
        if is_local(url):
            with open(local_path(url), "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(storage_for(url).read(url)).hexdigest()
    except FileNotFoundError:
        return "absent"


def content_digest(files: Iterable[FileEntry]) -> str:
    """Identity of what an artifact holds: paths and sha256 of its data files, and nothing else."""
    return digest(sorted([entry.path, entry.sha256] for entry in files))


def ledger_path(key: str) -> str:
    """File name of a unit in ledger/ and (without the suffix) in rejects/."""
    name = urllib.parse.quote(key, safe="")
    if len(name) > 120 or name.startswith("."):
        name = f"{name.lstrip('.')[:100]}~{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    return f"{name}.json"


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
