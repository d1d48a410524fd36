"""Items said in other words: passages whose vector is near an item's, or clearly nearer to it than to other items.

The second is the margin criterion of Artetxe and Schwenk (2019, arXiv 1811.01136): a translation is never as near as a
rephrased text, but nearer to its own item than to the next ones.

Two ways to make vectors. TF-IDF of letter 3-grams is built in: it knows rephrased items of the same language by their
rare words, and no translation. An embedder is a child process of the user's choice that turns texts into vectors, in
an environment of its own: one JSON string a line in, one JSON list of numbers a line out.
"""

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any, Protocol

import numpy as np
from scipy import sparse

from tasks.decontaminate.config import Paraphrases
from tasks.decontaminate.index import Item
from tasks.decontaminate.letters import letters
from tasks.decontaminate.search import Found
from tasks.decontaminate.units import characters
from tasks.errors import ConfigError, HostFault

NGRAM = 3
COLUMNS_LOG2 = 20
NEIGHBOURS = 4  # the next items, whose mean cosine is the margin's foot; without so many there is no margin
BLOCK = 64  # passages compared with all items at a time
PATIENCE_S = 20  # for an embedder to end
MIN_LETTERS = 20  # a shorter passage is near too much
_PARAGRAPH = re.compile(r"\n\s*\n")

Vectors = Callable[[Sequence[str]], Any]  # a matrix of unit rows, dense or sparse


class Closest(Protocol):
    """Says of each row, given as its passages, which item one of them is near."""

    def __call__(self, rows: Sequence[Sequence[str]]) -> list[Found | None]: ...


def passages_of(row: dict[str, Any]) -> list[str]:
    """What of a row is compared by itself: each message of a conversation, each paragraph of a document."""
    if "messages" in row:
        return [str(message["content"]) for message in json.loads(row["messages"])]
    return _PARAGRAPH.split(row["text"])


@contextlib.contextmanager
def closest_to(items: Sequence[Item], rules: Paraphrases) -> Iterator[Closest]:
    """The comparison with these items; an embedder runs as long as the block does.

    Raises:
        ConfigError: the embedder cannot be started.
        HostFault: it ended, or said what is no row of numbers.
    """
    with contextlib.ExitStack() as stack:
        if rules.embedder:
            vectors: Vectors = stack.enter_context(_Embedder(rules.embedder)).vectors
        else:
            vectors = _TfIdf([item.text for item in items]).vectors
        targets = vectors([item.text for item in items])
        name = rules.model or f"TF-IDF of {NGRAM} letters"
        names = (f"{name}: cosine {rules.min_cosine:g}", f"{name}: margin {rules.min_margin:g}")

        def closest(rows: Sequence[Sequence[str]]) -> list[Found | None]:
            found: list[Found | None] = [None] * len(rows)
            long = [[text for text in row if sum(map(str.isalnum, text)) >= MIN_LETTERS] for row in rows]
            flat = [(i, text) for i, row in enumerate(long) for text in row]
            for start in range(0, len(flat), BLOCK):
                block = flat[start : start + BLOCK]
                near = _nearest(vectors([text for _, text in block]), targets)
                for (i, text), score, margin, number in zip(block, *near, strict=True):
                    best, is_near = found[i], score >= rules.min_cosine
                    if (is_near or margin >= rules.min_margin) and (best is None or score > best.similarity):
                        found[i] = Found(items[number], names[not is_near], float(score), text)
            return found

        yield closest


def _nearest(passages: Any, targets: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine with the nearest item (the first of equals), how far that is above the next ones, and which item it is."""
    scores = passages @ targets.T
    scores = np.asarray(scores.toarray() if sparse.issparse(scores) else scores, np.float64)
    numbers = np.argmax(scores, axis=1)
    best = scores[np.arange(len(numbers)), numbers]
    margins = np.full(len(numbers), -1.0)
    if scores.shape[1] > NEIGHBOURS:
        top = np.sort(np.partition(scores, -NEIGHBOURS - 1, axis=1)[:, -NEIGHBOURS - 1 :], axis=1)
        margins = top[:, -1] - top[:, :-1].mean(axis=1)
    return np.round(best, 6), np.round(margins, 6), numbers


class _TfIdf:
    """(1 + log count) x (1 + log((1 + items) / (1 + items with it))), scaled to length one; hashed to 2^20 columns."""

    def __init__(self, texts: Sequence[str]):
        counts = _counts(texts)
        having = np.bincount(counts.indices, minlength=1 << COLUMNS_LOG2)
        self._weights = (1 + np.log((1 + len(texts)) / (1 + having))).astype(np.float32)

    def vectors(self, texts: Sequence[str]) -> sparse.csr_matrix:
        found = _counts(texts)
        found.data = (1 + np.log(found.data)) * self._weights[found.indices]
        lengths = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
        found.data /= np.repeat(np.where(lengths > 0, lengths, 1), np.diff(found.indptr)).astype(np.float32)
        return found


def _counts(texts: Sequence[str]) -> sparse.csr_matrix:
    units = characters(letters(texts))
    hashes = units.hashes(NGRAM)
    starts = units.inside(np.arange(len(hashes)), NGRAM)
    columns = (hashes[starts] >> np.uint64(64 - COLUMNS_LOG2)).astype(np.int64)
    shape = (len(texts), 1 << COLUMNS_LOG2)
    made = sparse.csr_matrix((np.ones(len(starts), np.float32), (units.owners(starts), columns)), shape=shape)
    made.sum_duplicates()
    return made


class _Embedder:
    """A child that answers each line with a row of numbers; it ends when its input does."""

    def __init__(self, command: Sequence[str]):
        self._command = list(command)

    def __enter__(self) -> "_Embedder":
        try:
            self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise ConfigError(
                f"embedder {self._command} cannot be started ({error}): paraphrases would pass without a look. "
                "Correct the command, or leave it blank for TF-IDF."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._child.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:  # it does not end with its input
            self._child.kill()
            self._child.communicate()

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Unit rows; texts and answers go through pipes side by side, so neither end waits for ever."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        sender = threading.Thread(target=_send, args=(self._child.stdin, texts), daemon=True)
        sender.start()
        rows = [self._row(self._child.stdout) for _ in texts]
        sender.join()
        if not rows:
            return np.zeros((0, 1), np.float32)
        made = np.array(rows, np.float32)
        return made / np.maximum(np.linalg.norm(made, axis=1, keepdims=True), 1e-12)

    def _row(self, answers: IO[bytes]) -> list[float]:
        line = answers.readline()
        try:
            row = json.loads(line)
            return [float(number) for number in row]
        except (ValueError, TypeError) as error:
            raise HostFault(
                f"embedder {self._command} answered {line[:200]!r} (exit code {self._child.poll()}): a line must be a "
                "JSON list of numbers, one for each text. Run it by hand on a line and see what it says."
            ) from error


def _send(questions: IO[bytes], texts: Sequence[str]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the missing answer is what is reported
        for text in texts:
            questions.write(json.dumps(text).encode() + b"\n")
        questions.flush()
