"""Files at any URL, typed: atomic writes, compare-and-swap, and nothing else of fsspec reaches the other modules.

Three kinds of store keep the promises in full: a local disk (flock and rename), `memory://` (a lock) and `gs://`
(generation preconditions). Others work for reading and writing, but without compare-and-swap the lease can only be
best effort, which is said in the log.
"""

import contextlib
import errno
import fcntl
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

log = logging.getLogger(__name__)

TRANSIENT = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.EHOSTDOWN}
ABSENT = ""  # the version of a file that does not exist
Source = bytes | Path
READ_THREADS = 16  # requests in flight to a bucket


class Storage(Protocol):
    """One kind of store. URLs are what `join` makes; a version is opaque and changes with every write."""

    def read(self, url: str) -> bytes: ...

    def write(self, url: str, source: Source) -> None: ...

    def upload(self, url: str, source: Path) -> None: ...

    def version(self, url: str) -> str: ...

    def write_if(self, url: str, source: Source, version: str) -> bool: ...

    def remove_if(self, url: str, version: str) -> bool: ...

    def size(self, url: str) -> int | None: ...

    def guard(self, url: str) -> contextlib.AbstractContextManager[None]: ...

    def find(self, url: str) -> dict[str, int]: ...

    def children(self, url: str) -> list[str]: ...

    def download(self, url: str, target: Path) -> None: ...

    def remove(self, url: str) -> None: ...

    def remove_tree(self, url: str) -> None: ...

    def modified(self, url: str) -> float: ...

    def sweep(self, url: str) -> None: ...

    def is_transient(self, error: Exception) -> bool: ...


def storage_for(url: str) -> Storage:
    """The store behind a URL or a path."""
    protocol = url.partition("://")[0] if "://" in url else "file"
    if protocol in ("file", "local"):
        return LOCAL
    if protocol == "memory":
        return MEMORY
    from tasks.objects import object_storage  # gcsfs and its 0.5 s of imports only where a bucket is named

    return object_storage(protocol)


def normalise(url: str) -> str:
    """One spelling for a store: absolute paths for local ones, no trailing slash."""
    if "://" not in url or url.startswith(("file://", "local://")):
        return str(local_path(url))
    return url.rstrip("/")


def join(url: str, *parts: str) -> str:
    """`url/part/part`."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts if part)])


def is_local(url: str) -> bool:
    """Whether the URL is a path of this machine."""
    return "://" not in url or url.startswith(("file://", "local://"))


def local_path(url: str) -> Path:
    """The path behind a local URL, absolute, `~` expanded."""
    bare = url.partition("://")[2] if "://" in url else url
    return Path(os.path.abspath(os.path.expanduser(bare)))


def exists(url: str) -> bool:
    """Whether there is a file at the URL."""
    return storage_for(url).version(url) != ABSENT


def read_all(urls: Sequence[str]) -> list[bytes | None]:
    """The content of many small files, in order; None for one that is absent. Several at a time from a bucket."""
    if not urls or is_local(urls[0]) or urls[0].startswith("memory://"):
        return [_read_or_none(url) for url in urls]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(_read_or_none, urls))


def _read_or_none(url: str) -> bytes | None:
    try:
        return storage_for(url).read(url)
    except FileNotFoundError:
        return None


class LocalStorage:
    """A local (or shared POSIX) disk: whole files appear by rename, exclusion by flock."""

    def read(self, url: str) -> bytes:
        return local_path(url).read_bytes()

    def write(self, url: str, source: Source) -> None:
        """Put a whole file in place by rename. A path given as source is moved when it is on the same disk.

        The content is on the disk before the name is. The name itself is not waited for: when the power fails, a
        file may be absent, which is repaired, but never half there.
        """
        target = local_path(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(source, Path):
            _sync(source)
            try:
                os.replace(source, target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._replace(target, source)
        else:
            self._replace(target, source)

    def upload(self, url: str, source: Path) -> None:
        """Put a copy of a file in place, whole or not at all; the file itself stays."""
        target = local_path(url)
        target.parent.mkdir(parents=True, exist_ok=True)
        self._replace(target, source)

    def _replace(self, target: Path, source: Source) -> None:
        temporary = target.with_name(f".{target.name[:80]}.{uuid.uuid4().hex}.tmp")
        try:
            if isinstance(source, Path):
                shutil.copyfile(source, temporary)
            else:
                temporary.write_bytes(source)
            _sync(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def version(self, url: str) -> str:
        try:
            stat = local_path(url).stat()
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        return f"{stat.st_ino}-{stat.st_mtime_ns}-{stat.st_size}"

    def write_if(self, url: str, source: Source, version: str) -> bool:
        """Write if the file still has this version. Call it inside `guard`, which makes the pair atomic."""
        if self.version(url) != version:
            return False
        self.write(url, source)
        return True

    def remove_if(self, url: str, version: str) -> bool:
        """Remove if the file still has this version. Call it inside `guard`."""
        if self.version(url) != version:
            return False
        self.remove(url)
        return True

    def size(self, url: str) -> int | None:
        """Bytes of a file, None when it is absent."""
        path = local_path(url)
        return path.stat().st_size if path.is_file() else None

    @contextlib.contextmanager
    def guard(self, url: str) -> Iterator[None]:
        """Exclusive among all processes of all hosts that share the disk; freed by the kernel when a holder dies."""
        descriptor = _lock(local_path(url) / ".lock")
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # a forked worker may share the descriptor: closing is not enough
            os.close(descriptor)

    def find(self, url: str) -> dict[str, int]:
        """All files under a directory: path relative to it -> bytes. Names that start with a dot are private."""
        root = local_path(url)
        found: dict[str, int] = {}
        for directory, folders, files in os.walk(root):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                if not name.startswith("."):
                    path = Path(directory, name)
                    with contextlib.suppress(FileNotFoundError):
                        found[path.relative_to(root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def children(self, url: str) -> list[str]:
        """Names of the directories in a directory, private ones excluded."""
        root = local_path(url)
        if not root.is_dir():
            return []
        return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))

    def download(self, url: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(local_path(url), target)

    def remove(self, url: str) -> None:
        local_path(url).unlink(missing_ok=True)

    def remove_tree(self, url: str) -> None:
        if local_path(url).exists():
            shutil.rmtree(local_path(url))

    def modified(self, url: str) -> float:
        """Seconds since the epoch of the last write."""
        return local_path(url).stat().st_mtime

    def sweep(self, url: str) -> None:
        """Remove what writers that died left half-written; live ones write inside `guard`."""
        with self.guard(url):
            for path in local_path(url).rglob(".*.tmp"):
                path.unlink(missing_ok=True)

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may pass later by itself: a network disk that is away, not a full or read-only one."""
        return isinstance(error, OSError) and error.errno in TRANSIENT


class FsspecStorage:
    """Any other fsspec file system: objects are put once, whole; there is no rename.

    Compare-and-swap here is atomic within this process only; a subclass brings the store's own preconditions.
    """

    def __init__(self, protocol: str, **options: Any):
        self.protocol = protocol
        self.options = options
        self.lock = threading.RLock()

    @property
    def fs(self) -> Any:
        import fsspec

        return fsspec.filesystem(self.protocol, **self.options)

    def read(self, url: str) -> bytes:
        return self.fs.cat_file(url)

    def write(self, url: str, source: Source) -> None:
        with self.lock:
            self.fs.pipe_file(url, source.read_bytes() if isinstance(source, Path) else source)

    def upload(self, url: str, source: Path) -> None:
        """Put a copy of a file there; how it is cut into requests is the driver's business."""
        self.fs.put_file(str(source), url)

    def version(self, url: str) -> str:
        try:
            info = self.fs.info(url)
        except FileNotFoundError:
            return ABSENT
        if info.get("type") == "directory":
            return ABSENT
        return str(info.get("etag") or info.get("ETag") or (info.get("created"), info.get("mtime"), info["size"]))

    def write_if(self, url: str, source: Source, version: str) -> bool:
        with self.lock:
            if self.version(url) != version:
                return False
            self.write(url, source)
            return True

    def remove_if(self, url: str, version: str) -> bool:
        with self.lock:
            if self.version(url) != version:
                return False
            self.remove(url)
            return True

    def size(self, url: str) -> int | None:
        try:
            info = self.fs.info(url)
        except FileNotFoundError:
            return None
        return None if info.get("type") == "directory" else int(info["size"])

    @contextlib.contextmanager
    def guard(self, url: str) -> Iterator[None]:
        """Nothing to hold: in an object store every single write is conditional."""
        yield

    def find(self, url: str) -> dict[str, int]:
        root = self.fs._strip_protocol(url).rstrip("/") + "/"
        listing: dict[str, Any] = self.fs.find(url, detail=True)
        paths = {path.removeprefix(root): int(info["size"]) for path, info in listing.items() if path.startswith(root)}
        return {path: size for path, size in sorted(paths.items()) if not is_private(path)}

    def children(self, url: str) -> list[str]:
        try:
            listing = self.fs.ls(url, detail=True)
        except FileNotFoundError:
            return []
        names = (info["name"].rstrip("/").rpartition("/")[2] for info in listing if info["type"] == "directory")
        return sorted(name for name in names if not name.startswith("."))

    def download(self, url: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        self.fs.get_file(url, str(target))

    def remove(self, url: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(url)

    def remove_tree(self, url: str) -> None:
        for path in self.find(url):
            self.remove(join(url, path))

    def modified(self, url: str) -> float:
        return self.fs.modified(url).timestamp()

    def sweep(self, url: str) -> None:
        """An object appears whole or not at all: nothing is left half-written."""

    def is_transient(self, error: Exception) -> bool:
        """Whether the same call may pass later by itself; of an unknown store, all but a plain refusal."""
        return isinstance(error, OSError) and not isinstance(error, PermissionError | FileNotFoundError)


class MemoryStorage(FsspecStorage):
    """`memory://`: one process, so one lock is the whole of exclusion."""

    def __init__(self) -> None:
        super().__init__("memory")

    def version(self, url: str) -> str:
        with self.lock:
            found = self.fs.store.get(self.fs._strip_protocol(url))
            return ABSENT if found is None else f"{id(found)}-{found.modified.timestamp()}-{found.size}"

    @contextlib.contextmanager
    def guard(self, url: str) -> Iterator[None]:
        with self.lock:
            yield

    def remove_tree(self, url: str) -> None:
        with self.lock:
            if self.fs.exists(url):
                self.fs.rm(url, recursive=True)


LOCAL = LocalStorage()
MEMORY = MemoryStorage()


def is_private(path: str) -> bool:
    """Whether a part of the path starts with a dot: locks, staging and temporary names, never part of an artifact."""
    return any(part.startswith(".") for part in path.split("/"))


def _lock(path: Path) -> int:
    """A locked descriptor of the file that is at the path now (`gc` may have removed an older one)."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:
            continue  # the directory was removed in between
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
