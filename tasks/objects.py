"""Object stores: `gs://` with its generation preconditions, and any other fsspec protocol as best effort."""

import functools
import logging

from tasks.storage import FsspecStorage

log = logging.getLogger(__name__)


@functools.cache
def object_storage(protocol: str) -> FsspecStorage:
    """The store of a protocol, made once."""
    if protocol not in ("gs", "gcs"):
        log.warning("%s:// has no compare-and-swap here: see to it yourself that one run writes at a time", protocol)
    return FsspecStorage(protocol)
