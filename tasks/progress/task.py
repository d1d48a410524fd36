"""Prefect's view of progress: one progress artifact per task run, updated a few times a minute."""

import contextlib
import logging
import re
import time
from collections.abc import Iterator
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext

from tasks.progress import Progress, listen

log = logging.getLogger(__name__)

UPDATE_EVERY_S = 5.0  # each update is a request to the server


@contextlib.contextmanager
def prefect_progress(stage: str, name: str) -> Iterator[None]:
    """Show the progress of the block as a Prefect progress artifact; outside a task run nothing happens."""
    if TaskRunContext.get() is None:
        yield
        return
    with listen(_Publisher(stage, name)):
        yield


class _Publisher:
    """Creates the artifact at the first snapshot with a total and updates it at most every UPDATE_EVERY_S."""

    def __init__(self, stage: str, name: str):
        self._key = re.sub(r"[^a-z0-9]+", "-", f"progress-{stage}-{name}".lower()).strip("-")
        self._id: UUID | None = None
        self._sent = 0.0

    def __call__(self, state: Progress) -> None:
        now = time.monotonic()
        if state.fraction is None or (now - self._sent < UPDATE_EVERY_S and not state.finished):
            return
        self._sent = now
        try:
            self._send(round(100 * state.fraction, 1), str(state))
        except Exception as error:  # a picture of the work must never stop the work
            log.warning("progress of %s was not sent: %s", self._key, error)

    def _send(self, percent: float, text: str) -> None:
        if self._id is None:
            created = create_progress_artifact(progress=percent, key=self._key, description=text)
            assert isinstance(created, UUID)
            self._id = created
        else:
            update_progress_artifact(self._id, progress=percent, description=text)
