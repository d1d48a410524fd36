"""Answers that outlive the process that asked: one small file each, keyed by the request's digest, any fsspec URL.

    STORE/.answers/MODEL/DD/DIGEST.json      {"request", "answer", "sha256" of both}

A file appears whole (rename, or one put) and carries its own checksum: a torn or damaged one is found and asked again.
"""

import hashlib
import json
import logging
import re
from dataclasses import asdict

from tasks.generation.requests import Answer, Request, canonical_json
from tasks.storage import join, storage_for

log = logging.getLogger(__name__)

FOLDER = ".answers"  # a private name: `gc` knows artifacts only, and answers may have been paid for


def answers_url(artifact_url: str) -> str:
    """The answer store of the store that holds an artifact (STORE/STAGE/NAME-FP)."""
    return join(artifact_url.rstrip("/").rsplit("/", 2)[0], FOLDER)


class AnswerStore:
    """What was answered, by request. Safe for any number of writers: equal keys hold equal questions."""

    def __init__(self, url: str):
        self.url = url
        self._storage = storage_for(url)

    def get(self, request: Request) -> Answer | None:
        """The committed answer; None when there is none or it is damaged (said in the log)."""
        path = self._path(request)
        try:
            data = self._storage.read(path)
        except FileNotFoundError:
            return None
        try:
            record = json.loads(data)
            if record["sha256"] != _checksum(record["request"], record["answer"]):
                raise ValueError("its checksum is not that of its content")
            if canonical_json(record["request"]) != canonical_json(request.as_json()):
                raise ValueError("it answers another request")
            return Answer.from_json(record["answer"])
        except (ValueError, KeyError, TypeError) as error:
            log.warning("answer %s is damaged (%s) and is asked again", path, error)
            return None

    def put(self, request: Request, answer: Answer) -> None:
        """Commit one answer; when this returns, it is on the disk."""
        question, reply = request.as_json(), asdict(answer)
        record = {"request": question, "answer": reply, "sha256": _checksum(question, reply)}
        self._storage.write(self._path(request), canonical_json(record) + b"\n")

    def _path(self, request: Request) -> str:
        model = re.sub(r"[^A-Za-z0-9@._-]+", "-", request.model)
        return join(self.url, model, request.digest[:2], f"{request.digest}.json")


def _checksum(request: object, answer: object) -> str:
    return hashlib.sha256(canonical_json([request, answer])).hexdigest()
