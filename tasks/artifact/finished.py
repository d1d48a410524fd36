"""Finished artifacts: found by URL, verified, read."""

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tasks.artifact.manifest import MANIFEST, SMALL_BYTES, Damage, FileEntry, Manifest, file_digest, inspect
from tasks.errors import DataFault
from tasks.storage import is_local, join, local_path, normalise, storage_for


class DamagedArtifact(DataFault):
    """A finished artifact is not what its manifest says."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: its place and its papers. Paths are relative to data/."""

    url: str
    manifest: Manifest

    def files(self, prefix: str = "") -> list[FileEntry]:
        """The files whose path starts with the prefix, by path."""
        return sorted((e for e in self.manifest.files if e.path.startswith(prefix)), key=lambda entry: entry.path)

    def file_url(self, path: str) -> str:
        """Where a file is. The file need not exist."""
        return join(self.url, "data", path)

    def entry(self, path: str) -> FileEntry:
        """What the manifest says of one file.

        Raises:
            FileNotFoundError: the artifact has no such file.
        """
        for entry in self.manifest.files:
            if entry.path == path:
                return entry
        raise FileNotFoundError(
            f"{self.url} has no file {path!r} but {[e.path for e in self.manifest.files][:8]}: "
            "only what the manifest lists is part of an artifact. Correct the path."
        )

    def read_bytes(self, path: str) -> bytes:
        """The content of one file, compared with its sha256."""
        entry = self.entry(path)
        data = storage_for(self.url).read(self.file_url(path))
        _require_entry(self.url, entry, len(data), hashlib.sha256(data).hexdigest())
        return data

    def read_json(self, path: str) -> Any:
        """The content of one JSON file."""
        return json.loads(self.read_bytes(path))

    def local_dir(self, prefix: str = "") -> Path:
        """A local directory with the files under `prefix`: the artifact's own, or a verified download that is kept."""
        if is_local(self.url):
            return local_path(self.url) / "data" / prefix
        root = cache_root() / "objects" / f"{self.manifest.stage}-{self.manifest.content_digest[:24]}"
        for entry in self.files(prefix):
            target = root / entry.path
            if _is_whole(target, entry):
                continue
            partial = target.with_name(f".{target.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            storage_for(self.url).download(self.file_url(entry.path), partial)
            with open(partial, "rb") as file:
                _require_entry(self.url, entry, partial.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
            os.replace(partial, target)
        return root / prefix


def open_artifact(url: str, *, deep: bool = False) -> Artifact:
    """A finished artifact by its URL, verified.

    Raises:
        FileNotFoundError: nothing finished is there.
        DamagedArtifact: its files are not what its manifest says.
    """
    url = normalise(url)
    finding = inspect(url, deep=deep)
    if finding.manifest is None and not finding.damage:
        raise FileNotFoundError(
            f"{url} holds no {MANIFEST}: an artifact is finished when its manifest is there. "
            "Make it first, or correct the URL."
        )
    if finding.manifest is None or finding.damage:
        raise_damage(url, finding.damage)
    return Artifact(url, finding.manifest)


def _is_whole(copy: Path, entry: FileEntry) -> bool:
    if not copy.is_file() or copy.stat().st_size != entry.bytes:
        return False
    return entry.bytes > SMALL_BYTES or file_digest(str(copy)) == entry.sha256


def raise_damage(url: str, damage: Sequence[Damage]) -> NoReturn:
    """Refuse to use an artifact.

    Raises:
        DamagedArtifact: always.
    """
    raise DamagedArtifact(
        f"{url}: {'; '.join(map(str, damage[:8]))}. A finished artifact must be what its manifest says, because all "
        "that comes after it is made from it. Run the step that makes it again: only the damaged units are redone."
    )


def _require_entry(url: str, entry: FileEntry, size: int, sha256: str) -> None:
    if (size, sha256) != (entry.bytes, entry.sha256):
        expected = f"{entry.bytes:,} bytes with sha256 {entry.sha256[:12]} expected"
        raise_damage(url, [Damage(f"data/{entry.path}", f"{size:,} bytes with sha256 {sha256[:12]}, {expected}")])


def cache_root() -> Path:
    """Where this machine keeps downloads and, for remote stores, scratch: $NESTLING_SCRATCH or the user's cache."""
    return Path(os.environ.get("NESTLING_SCRATCH") or Path.home() / ".cache" / "nestling").absolute()
