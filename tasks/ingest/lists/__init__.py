"""Word lists as data: files beside this one, or of your own at any URL. A list is named together with its digest.

A reference is `NAME#sha256=HEX` or `URL#sha256=HEX`. Configs hold such references, so that a list that changes changes
the identity of what it cleaned. For lists of this folder the digest is filled in; licences are in README.md.
"""

import functools
import hashlib
from pathlib import Path

from tasks.storage import storage_for

FOLDER = Path(__file__).parent
_MARK = "#sha256="
_SHORTEST = 12  # hexadecimal digits of a digest


def resolved(reference: str) -> str:
    """The reference with its digest.

    Raises:
        ValueError: no such list here, another digest than the list has, or a URL without one.
    """
    name, mark, digest = reference.partition(_MARK)
    if "/" in name:
        if len(digest) < _SHORTEST:
            raise ValueError(
                f"word list {reference!r} has no digest: a list that changes unseen would change the corpus under the "
                f"same name. Write {name}{_MARK}HEX, at least {_SHORTEST} digits of what sha256sum prints for the file."
            )
        return reference
    file = FOLDER / f"{name}.txt"
    if not file.is_file():
        raise ValueError(
            f"word list {name!r} is not one of {', '.join(available())}: a name without a slash is a file of "
            "tasks/ingest/lists. Use one of these, or the URL of your own list."
        )
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    if mark and not found.startswith(digest):
        raise ValueError(
            f"word list {reference!r}: the file now has the digest {found[:_SHORTEST]}. A config means the list "
            f"that it was written for. Leave out {_MARK}… to take today's list, or check out the code of that time."
        )
    return f"{name}{_MARK}{found[:_SHORTEST]}"


def available() -> list[str]:
    """Names of the lists in this folder."""
    return sorted(file.stem for file in FOLDER.glob("*.txt"))


def stem(reference: str) -> str:
    """The name of a list without folder, suffix and digest: what columns are called."""
    return reference.partition(_MARK)[0].rpartition("/")[2].removesuffix(".txt")


@functools.lru_cache(maxsize=64)
def words(reference: str) -> tuple[str, ...]:
    """The lines of a list: no blank ones, each once, in the order of the file.

    Raises:
        ValueError: the file at a URL has another digest, or does not exist in this folder.
    """
    name, _, digest = resolved(reference).partition(_MARK)
    data = storage_for(name).read(name) if "/" in name else (FOLDER / f"{name}.txt").read_bytes()
    found = hashlib.sha256(data).hexdigest()
    if not found.startswith(digest):
        raise ValueError(
            f"word list {name}: its digest is {found}, the config says {digest}: another list would give another "
            "corpus. Restore the file, or write the new digest into the config."
        )
    lines = (line.strip() for line in data.decode("utf-8-sig").splitlines())
    return tuple(dict.fromkeys(line for line in lines if line))
