"""Host lists in the form of the UT1 collection (DIRECTORY/CATEGORY/domains), as sorted hashes: 8 bytes a host."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np
import xxhash

from tasks.storage import join, storage_for


@dataclass(frozen=True)
class HostTable:
    """Hosts by category."""

    hashes: dict[str, np.ndarray]  # category -> sorted

    def listed(self, hosts: Sequence[str], category: str) -> np.ndarray:
        """Which of these hosts stand in a category. The whole name counts: www.example.org is not example.org."""
        known, asked = self.hashes[category], _hashes(hosts)
        if not len(known):
            return np.zeros(len(asked), np.bool_)
        return known[np.minimum(np.searchsorted(known, asked), len(known) - 1)] == asked


def host_of(url: str) -> str:
    """The host of an address in small letters, without port; empty when it has none."""
    try:
        return (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # brackets that are no IPv6 address
        return ""


@functools.lru_cache(maxsize=2)
def host_table(directory: str, categories: tuple[str, ...], digest: str) -> HostTable:
    """Read the files of these categories.

    Raises:
        ValueError: a category has no file, or the files have another digest.
    """
    sha, hashes = hashlib.sha256(), {}
    for category in sorted(categories):
        url = join(directory, category, "domains")
        try:
            data = storage_for(url).read(url)
        except FileNotFoundError as error:
            raise ValueError(
                f"{url} does not exist: each rejected category is a folder with a file `domains` (the form of the UT1 "
                "lists). Correct the directory, or leave the category out of rejected."
            ) from error
        sha.update(f"{category} {len(data)}\n".encode() + data)
        lines = (line.strip().lower() for line in data.decode("utf-8", "replace").splitlines())
        hashes[category] = np.unique(_hashes([line for line in lines if line]))
    found = sha.hexdigest()
    if not digest or not found.startswith(digest):
        raise ValueError(
            f"the host lists of {directory} have the digest {found}, the config says {digest or 'none'}: other lists "
            f"would give another corpus. Set lists_sha256={found[:16]} to take these, or restore the files."
        )
    return HostTable(hashes)


def _hashes(hosts: Sequence[str]) -> np.ndarray:
    return np.fromiter((xxhash.xxh3_64_intdigest(host.encode()) for host in hosts), np.uint64, len(hosts))
