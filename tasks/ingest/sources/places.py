"""Where the files of a source are: on this machine, or at any fsspec URL (https, s3, gs, hf).

A remote file is copied here whole before it is read, and its size compared: a connection that breaks in the middle is a
host fault, and never looks like a file that ends too soon.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import DataFault, HostFault
from tasks.ingest.sources.source import SourceConfig, files_state, list_files, relative
from tasks.storage import Storage, is_local, join, local_path, storage_for

RETRY_DELAYS_S = (1, 5, 25)
ABSENT = (FileNotFoundError, PermissionError)


def files(config: SourceConfig, patterns: tuple[str, ...]) -> list[str]:
    """Paths or URLs of the files a source consists of, sorted; a single file is a source too.

    Raises:
        ValueError: there are none, or they are remote and no revision says in which state they are.
    """
    if is_local(config.location):
        return [str(path) for path in list_files(config, patterns)]
    needs_revision(config)
    storage = storage_for(config.location)
    if config.location.startswith(("http://", "https://")) or storage.size(config.location) is not None:
        return [config.location]  # a web server has no directories to list
    found = [join(config.location, path) for path in storage.find(config.location) if config.takes(path, patterns)]
    if not found:
        raise ValueError(
            f"source {config.name!r}: location={config.location!r} holds no file that matches "
            f"{list(config.include or patterns)}: a source without pages would give an empty corpus. "
            "Correct the URL or the include globs, or remove the source."
        )
    return found


def needs_revision(config: SourceConfig) -> None:
    """Refuse a remote source that does not say in which state it is.

    Raises:
        ValueError: it has no revision.
    """
    if not config.revision:
        raise ValueError(
            f"source {config.name!r}: location={config.location!r} is not on this machine and has no revision: what is "
            "behind a URL may change, and a corpus must say which state it was made from. Set revision to the name of "
            "the snapshot (CC-MAIN-2024-10, a commit, the date of a dump)."
        )


def key_of(config: SourceConfig, url: str) -> str:
    """The path of a file inside its source."""
    if is_local(url):
        return relative(config, Path(url))
    root = config.location.rstrip("/")
    return url.removeprefix(root).lstrip("/") or url.rpartition("/")[2]


def state(config: SourceConfig, patterns: tuple[str, ...]) -> dict[str, Any]:
    """What the files hold: their digest, or where they are and the declared revision."""
    return files_state(config, patterns) if is_local(config.location) else {"location": config.location}


@contextlib.contextmanager
def fetched(url: str) -> Iterator[Path]:
    """A local path of the file, which is copied here for as long as it is used when it is remote.

    Raises:
        HostFault: the network failed, also after some tries.
        DataFault: there is no such file, or it may not be read.
    """
    if is_local(url):
        yield local_path(url)
        return
    with tempfile.TemporaryDirectory(prefix="nestling-") as folder:
        path = Path(folder, url.rpartition("/")[2].partition("?")[0] or "file")
        _tried(url, lambda storage: _download(storage, url, path))
        yield path


def ranges(urls: Sequence[str], starts: Sequence[int], ends: Sequence[int]) -> list[bytes | Exception]:
    """The bytes [start, end) of each file, several requests at a time; a file that is not there is an exception.

    Raises:
        HostFault: the network failed, also after some tries.
    """
    import fsspec

    found: dict[int, Any] = {}
    for delay in (*RETRY_DELAYS_S, None):
        missing = [i for i in range(len(urls)) if i not in found or _may_pass(found[i])]
        fs, _ = fsspec.url_to_fs(urls[0])
        answers = fs.cat_ranges(
            [fs._strip_protocol(urls[i]) for i in missing],
            [starts[i] for i in missing],
            [ends[i] for i in missing],
            on_error="return",
        )
        found |= dict(zip(missing, answers, strict=True))
        failed = [error for error in answers if _may_pass(error)]
        if not failed:
            return [found[i] for i in range(len(urls))]
        if delay is None:
            raise _away(urls[0], failed[0])
        time.sleep(delay)
    raise AssertionError("the last delay is None")


def _may_pass(answer: Any) -> bool:
    return isinstance(answer, Exception) and not isinstance(answer, ABSENT)


def _tried(url: str, action: Any) -> None:
    storage = storage_for(url)
    for delay in (*RETRY_DELAYS_S, None):
        try:
            return action(storage)
        except ABSENT as error:
            raise DataFault(
                f"{url} cannot be read ({type(error).__name__}: {error}): the source names a file that is not there or "
                "not public. Correct the location, the list of paths or the revision; what was read is kept."
            ) from error
        except Exception as error:
            if delay is None:
                raise _away(url, error) from error
            time.sleep(delay)


def _away(url: str, error: Exception) -> HostFault:
    return HostFault(
        f"{url} could not be fetched in {len(RETRY_DELAYS_S) + 1} tries ({type(error).__name__}: {error}): the network "
        "or the server is away. Run the same command again when it is back; what was read is kept."
    )


def _download(storage: Storage, url: str, path: Path) -> None:
    storage.download(url, path)
    wanted = storage.size(url)
    if wanted is not None and path.stat().st_size != wanted:
        raise EOFError(f"{path.stat().st_size:,} of {wanted:,} bytes came")
