"""HTML pages of Debian packages: fetched by name with apt in private directories, without root, and kept in a cache.

A package is read as a stream; nothing is installed or unpacked. A second run needs no network.
"""

import contextlib
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from tasks.errors import ConfigError, DataFault, HostFault
from tasks.ingest.sources.source import Page, Part, Rejected, Source, SourceConfig, limited

PATTERNS = ("*.html", "*.htm", "*.html.gz", "*.htm.gz")  # below usr/share
FETCH_TIMEOUT_S = 900
_RETRIES = 3


def parts(config: SourceConfig) -> list[Part]:
    """One part a package.

    Raises:
        ValueError: no package is named.
    """
    if not config.packages:
        raise ConfigError(
            f"source {config.name!r} of kind 'debian' names no packages: there is nothing to fetch. "
            "Set its packages, for example ('debian-reference-ja',)."
        )
    return [Part(package.replace("=", "-"), (package,)) for package in config.packages]


def read(config: SourceConfig, part: Part) -> Iterator[Page | Rejected]:
    """The pages of one package in the order of its archive, which is the same on every machine.

    Raises:
        HostFault: the package is not in the cache and cannot be fetched.
    """
    [package] = part.items
    deb = fetch(config.packages, Path(config.cache_dir))[package]
    return limited(config, _pages(config, package.split("=")[0], deb))


def state(config: SourceConfig) -> dict[str, Any]:
    """Nothing: a package is what its name (and version, where one is given) says."""
    return {}


def notice(config: SourceConfig) -> str:
    """The copyright file of every package, in the order of the packages."""
    texts = [f"{config.name}: {config.attribution}\nLicence: {config.licence}\n"]
    for package, deb in fetch(config.packages, Path(config.cache_dir)).items():
        name = package.split("=")[0]
        wanted = f"usr/share/doc/{name}/copyright"
        with contextlib.closing(_members(deb)) as members:  # stops unpacking when it is found
            found = next((text for path, _, text in members if path == wanted), None)
        if found is None:
            raise DataFault(
                f"source {config.name!r}: {deb.name} has no {wanted}: a package's copyright notice must travel with "
                "what is made of its pages. Leave the package out, or take it as an html source with its notice."
            )
        texts.append(f"--- {deb.name}\n{found.decode('utf-8', 'replace')}")
    return "\n".join(texts)


def fetch(packages: Sequence[str], cache: Path) -> dict[str, Path]:
    """The .deb file of each package, from the cache or else with apt; all missing ones in one go.

    Raises:
        ConfigError: this machine has no apt, or its index does not know a package.
        HostFault: the network failed.
    """
    cache = cache.expanduser().absolute()
    missing = [package for package in packages if _cached(package, cache) is None]
    if missing:
        _download(missing, cache)
    found = {package: _cached(package, cache) for package in packages}
    absent = [package for package, deb in found.items() if deb is None]
    if absent:
        raise HostFault(
            f"packages {absent} were fetched but are not in {cache}: another program removes files there. "
            "Set the source's cache_dir to a directory of its own."
        )
    return {package: deb for package, deb in found.items() if deb is not None}


def _cached(package: str, cache: Path) -> Path | None:
    """The cached file of a package if it is whole; a damaged one counts as absent."""
    try:
        entry = json.loads((cache / f"{package.replace('=', '-')}.json").read_text("utf-8"))
        deb = cache / entry["file"]
        with deb.open("rb") as handle:
            whole = hashlib.file_digest(handle, "sha256").hexdigest() == entry["sha256"]
    except (OSError, ValueError, KeyError):
        return None
    return deb if whole else None


def _download(packages: Sequence[str], cache: Path) -> None:
    tools = [tool for tool in ("apt-get", "apt-config", "dpkg-deb") if not shutil.which(tool)]
    if tools:
        raise ConfigError(
            f"packages {list(packages)} are not in {cache} and this machine has no {', '.join(tools)}: "
            "a 'debian' source is fetched with apt. Copy the cache from a Debian machine, or use a source of "
            "kind html, warc or jsonl."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=cache) as private:
        root = Path(private)
        environment = _private_apt(root)
        update = _apt(["update"], root, environment)
        done = _apt(["download", *packages], root, environment)
        for package in packages:
            fetched = sorted(root.glob(f"{package.split('=')[0]}_*.deb"))
            if len(fetched) != 1 and len(packages) > 1:  # one unknown name makes apt fetch none: find out which
                done = _apt(["download", package], root, environment)
                fetched = sorted(root.glob(f"{package.split('=')[0]}_*.deb"))
            if len(fetched) != 1:
                raise _failure(package, cache, update, done)
            _keep(package, fetched[0], cache)


def _private_apt(root: Path) -> dict[str, str]:
    """A configuration of apt that keeps all its state below `root`: the machine's package sources, proxies and
    keys, none of its hooks, no lock that needs root."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True)
    (root / "state/status").touch()
    dumped = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=False).stdout
    lines = [
        *(line for line in dumped.splitlines() if line.startswith("Acquire::") and not line.endswith(' "";')),
        f'Dir::State "{root}/state";',
        f'Dir::State::status "{root}/state/status";',
        f'Dir::Cache "{root}/cache";',
        'Dir::Etc::parts "/dev/null";',
        'Dir::Etc::main "/dev/null";',
        'Acquire::Languages "none";',
        f'Acquire::Retries "{_RETRIES}";',
        'Acquire::http::Timeout "20";',
        'Acquire::https::Timeout "20";',
        f'APT::Sandbox::User "{"root" if os.geteuid() == 0 else ""}";',
    ]
    conf = root / "apt.conf"
    conf.write_text("\n".join(lines) + "\n", "utf-8")
    return {**os.environ, "APT_CONFIG": str(conf), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def _apt(arguments: list[str], root: Path, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    command = ["apt-get", "-q", *arguments]
    try:
        return subprocess.run(
            command, cwd=root, env=environment, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise HostFault(
            f"`{' '.join(command)}` did not end within {FETCH_TIMEOUT_S} s: the package mirror does not answer. "
            "Check the network and the machine's package sources, then run the same command again."
        ) from error


def _failure(
    package: str,
    cache: Path,
    update: "subprocess.CompletedProcess[str]",
    download: "subprocess.CompletedProcess[str]",
) -> Exception:
    """Tell 'no network' from 'no such package', quoting apt."""
    said = [line for line in (update.stderr + download.stderr).splitlines() if line.startswith(("E:", "W:"))]
    quoted = "".join(f"    {line[:200]}\n" for line in dict.fromkeys(said[:6]))
    if "No space left" in update.stderr + download.stderr:
        return OSError(28, "No space left on device", str(cache))
    if any("Failed to fetch" in line or "Temporary failure" in line or "Could not resolve" in line for line in said):
        return HostFault(
            f"package {package!r} is not in the cache {cache} and apt could not fetch it:\n{quoted}"
            "Pages of this source come from a package mirror the first time, from the cache afterwards. "
            "Check the network (or copy a filled cache there), then run the same command again: it resumes."
        )
    return ConfigError(
        f"package {package!r} is unknown to this machine's package sources:\n{quoted}"
        "A 'debian' source takes packages by exact name; names differ between releases. "
        "Correct it in the source's packages, or leave it out."
    )


def _keep(package: str, deb: Path, cache: Path) -> None:
    """Move a fetched package into the cache, and write its digest last."""
    with deb.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    deb.replace(cache / deb.name)
    entry = deb.with_suffix(".json")
    entry.write_text(json.dumps({"file": deb.name, "sha256": digest}) + "\n", "utf-8")
    entry.replace(cache / f"{package.replace('=', '-')}.json")


def _pages(config: SourceConfig, package: str, deb: Path) -> Iterator[Page | Rejected]:
    for path, modified, content in _members(deb):
        if not (path.startswith("usr/share/") and config.takes(path, PATTERNS) and _is_page(path)):
            continue
        url = f"deb:{package}/{path}"
        if path.endswith(".gz"):
            try:
                content = gzip.decompress(content)
            except (OSError, EOFError, zlib.error) as error:
                yield Rejected("unreadable", url, str(error))
                continue
        yield Page(url, content, "text/html", modified)


def _is_page(path: str) -> bool:
    return path.endswith((".html", ".htm", ".html.gz", ".htm.gz"))


def _members(deb: Path) -> Generator[tuple[str, str, bytes], None, None]:
    """Path, time and content of each regular page or notice in a package, in archive order.

    Raises:
        DataFault: the file is not a package, or ends too soon.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(deb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield from _tar_members(process.stdout)
            process.stdout.read()  # the padding after the archive
            if process.wait():
                raise tarfile.ReadError(f"dpkg-deb ended with code {process.returncode}")
        except tarfile.TarError as error:
            process.kill()
            raise DataFault(
                f"{deb} cannot be read ({error}; {process.stderr.read().decode('utf-8', 'replace').strip()}): it is "
                "not a whole Debian package. Delete it from the cache and run again."
            ) from error
        finally:
            process.stdout.close()


def _tar_members(stream: IO[bytes]) -> Iterator[tuple[str, str, bytes]]:
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            path = member.name.removeprefix("./")
            if member.isreg() and (_is_page(path) or path.endswith("/copyright")):
                content = archive.extractfile(member)
                assert content is not None
                modified = datetime.fromtimestamp(member.mtime, UTC).isoformat(timespec="seconds")
                yield path, modified, content.read()


SOURCE = Source(parts, read, state, notice)
