"""The files of a git repository at one revision, or of a directory that is there already."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tasks.errors import ConfigError, HostFault
from tasks.ingest.sources import places
from tasks.ingest.sources.source import Part, SourceConfig, list_files, relative

CLONE_TIMEOUT_S = 1800
FILES_PER_PART = 1000
_SCHEMES = ("https://", "http://", "ssh://", "git://", "file://")
_SAFE = (  # no hooks, no other transports, no filters: nothing of a repository is run
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "protocol.ext.allow=never"),
    *("-c", "core.symlinks=false"),
    *("-c", "core.autocrlf=false"),
)


def is_git(location: str) -> bool:
    """Whether a location names a repository to clone, not a directory to read."""
    return location.startswith(_SCHEMES) or location.startswith("git@") or location.endswith(".git")


def checkout(config: SourceConfig) -> SourceConfig:
    """The source with a local directory for location: its own, or a clone at its revision, kept in `cache_dir`.

    Raises:
        ConfigError: there is no git, or the repository has no such revision.
        HostFault: it could not be fetched.
        ValueError: no revision says which state is meant.
    """
    if not is_git(config.location):
        return config
    places.needs_revision(config)
    if config.revision.startswith("-"):
        raise ConfigError(
            f"source {config.name!r}: revision={config.revision!r} begins with a dash: git would take it for an option."
            " Name a commit, a tag or a branch."
        )
    key = hashlib.sha256(f"{config.location}\0{config.revision}".encode()).hexdigest()[:16]
    folder = Path(config.cache_dir).expanduser().absolute() / f"git-{config.name}-{key}"
    if not folder.is_dir():
        _clone(config, folder)
    return config.with_changes({"location": str(folder)})


def parts_of(config: SourceConfig, patterns: tuple[str, ...]) -> list[Part]:
    """Runs of FILES_PER_PART files in the order of their paths; links are not followed."""
    found = checkout(config)
    files = [relative(found, path) for path in list_files(found, patterns) if not path.is_symlink()]
    files = files[: config.max_pages] if config.max_pages else files
    runs = [files[start : start + FILES_PER_PART] for start in range(0, len(files), FILES_PER_PART)]
    return [Part(f"{index:05d}", tuple(run)) for index, run in enumerate(runs)]


def _clone(config: SourceConfig, folder: Path) -> None:
    if not shutil.which("git"):
        raise ConfigError(
            f"source {config.name!r}: {config.location!r} is a git repository and this machine has no git. "
            "Install git, or give a directory that holds the files."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".git-", dir=folder.parent) as private:
        made = Path(private, "files")
        _git(config, None, "init", "-q", str(made))
        fetch = ("fetch", "-q", "--depth", "1", "--no-tags", "--", config.location, config.revision)
        done = _git(config, made, *fetch, must=False)
        if done.returncode:  # some servers give no single commit by its name: take everything
            _git(config, made, "fetch", "-q", "--tags", "--", config.location, "+refs/heads/*:refs/remotes/origin/*")
            head = _git(config, made, "rev-parse", "--verify", "-q", f"{config.revision}^{{commit}}", must=False)
            if head.returncode:
                raise ConfigError(
                    f"source {config.name!r}: {config.location} has no revision {config.revision!r} "
                    f"({done.stderr.strip()[-300:]}): the corpus must be made of the state that was named. "
                    "Correct the revision: a full commit id, a tag or a branch."
                )
            _git(config, made, "checkout", "-q", "--detach", head.stdout.strip())
        else:
            _git(config, made, "checkout", "-q", "--detach", "FETCH_HEAD")
        shutil.rmtree(made / ".git")
        made.replace(folder)


def _git(
    config: SourceConfig, folder: Path | None, *arguments: str, must: bool = True
) -> "subprocess.CompletedProcess[str]":
    command = ["git", *_SAFE, *(("-C", str(folder)) if folder else ()), *arguments]
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=CLONE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise HostFault(
            f"source {config.name!r}: `git {arguments[0]}` did not end within {CLONE_TIMEOUT_S} s: {config.location} "
            "does not answer. Check the network, then run the same command again."
        ) from error
    if must and done.returncode:
        raise HostFault(
            f"source {config.name!r}: `git {arguments[0]}` of {config.location} failed: {done.stderr.strip()[-500:]}. "
            "The repository is read once and then kept. Check the address, the rights and the network, and run again."
        )
    return done
