"""Examples by a teacher: documents marked 0 to 3 for educational value through the request engine (recipes.md 4.2)."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.classify.config import AnnotateConfig
from tasks.classify.labels import rubric
from tasks.classify.labels.examples import (
    EXAMPLE,
    EXAMPLES,
    document_shards,
    id_ranks,
    is_heldout,
    sample_limit,
    sampled_rows,
    text_key,
)
from tasks.errors import ConfigError, DataFault
from tasks.gates import YieldWatch
from tasks.generation.answer_store import AnswerStore, answers_url
from tasks.generation.answers import Reply, answer_all, note_totals
from tasks.generation.requests import DeadLetter, Request, model_identity
from tasks.generation.server import policy_for, served
from tasks.records import table


@dataclass(frozen=True)
class Sheet:
    """All that stays the same while documents are marked."""

    documents: Artifact
    model: str  # identity of the teacher
    limit: int  # greatest rank that belongs to the sample
    config: AnnotateConfig

    def rows(self, path: str) -> Iterator[dict[str, str]]:
        """The sampled documents of one shard."""
        return sampled_rows(self.documents.file_url(path), self.config.sources, self.config.seed, self.limit)

    def request(self, row: dict[str, str]) -> Request:
        """The question about one document."""
        config = self.config
        messages = rubric.ask(row["text"], config.language, excerpt_chars=config.excerpt_chars, justify=config.justify)
        return Request(self.model, "chat", messages, rubric.sampling(config.max_answer_tokens, config.justify))


def annotate(workspace: Workspace, config: AnnotateConfig, inputs: dict[str, Artifact]) -> None:
    """Write `examples/SHARD.parquet` (EXAMPLE), a unit for each shard of documents; one row in is one request.

    Raises:
        ConfigError: the teacher does not chat.
        DataFault: no documents, or too few answers that hold a mark.
        HostFault: the teacher cannot be served.
    """
    teacher, documents = inputs["teacher"], inputs["documents"]
    facts = teacher.read_json("teacher.json")
    if not facts["chat"]:
        raise ConfigError(
            f"teacher {facts['name']} is a base model: a rubric is an instruction, and only chat models were taught to "
            "follow one. Choose a chat model, or make examples by origin (contrast)."
        )
    limit = sample_limit(id_ranks(documents, config.sources, config.seed), config.max_documents)
    if limit < 0:
        raise DataFault(
            f"{documents.url} has no document of {', '.join(config.sources) or 'any source'}: there is nothing to "
            "mark. Correct the names of the sources, or give other documents."
        )
    workspace.note(licences=facts["licence"], teachers=facts["name"], kind="annotate")
    sheet = Sheet(documents, model_identity(facts["name"], teacher.manifest.content_digest), limit, config)
    _mark(workspace, sheet, teacher)
    note_totals(workspace)


def _mark(workspace: Workspace, sheet: Sheet, teacher: Artifact) -> None:
    config = sheet.config
    paths = document_shards(sheet.documents)
    workspace.expect_units(len(paths))
    watch = YieldWatch(workspace.name, preview=config.preview_requests, least=config.min_yield)
    missing = watch.take(paths, workspace.unit_record)
    with served(teacher.local_dir("model"), config.serving, workspace.scratch.parent / "servers") as generator:
        asking = answer_all(
            (sheet.request(row) for path in missing for row in sheet.rows(path)),
            generator,
            AnswerStore(answers_url(workspace.url)),
            policy=policy_for(config.serving),
            label=f"annotate {workspace.name}",
        )
        with contextlib.closing(asking) as replies:
            for path in missing:
                with workspace.unit(path) as unit:
                    _write(unit, sheet, path, replies)
                watch.take([path], workspace.unit_record)
            for _ in replies:  # lets the engine close its books
                pass


def _write(unit: Unit, sheet: Sheet, path: str, replies: Iterator[tuple[Request, Reply]]) -> None:
    config = sheet.config
    kept: list[dict[str, Any]] = []
    books: Counter[str] = Counter()
    cost = 0.0
    for row in sheet.rows(path):
        request, reply = next(replies)
        assert request.digest == sheet.request(row).digest
        unit.count(rows_in=1)
        if isinstance(reply, DeadLetter):
            unit.drop(f"dead_{reply.reason}", row | {"message": reply.message, "attempts": reply.attempts})
            continue
        books.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        cost += reply.cost
        try:
            label = rubric.parse(reply, config.language, justify=config.justify)
        except rubric.NoMark as gate:
            unit.drop(str(gate), row | {"answer": reply.text, "finish": reply.finish})
            continue
        kept.append(row | {"label": label, "heldout": is_heldout(text_key(row["text"]), config.heldout_fraction)})
    unit.count(rows_out=len(kept))
    unit.write_parquet(f"{EXAMPLES}{path.replace('/', '-')}", table(kept, EXAMPLE))
    marks = Counter(row["label"] for row in kept)
    unit.note(**books, cost=round(cost, 6), marks={str(mark): marks[mark] for mark in sorted(marks)})


ANNOTATE = Stage(
    name="annotate",
    version="1",
    run=annotate,
    code=(
        "tasks.classify.labels.annotate",
        "tasks.classify.labels.examples",
        "tasks.classify.labels.rubric",
        "tasks.classify.text",
        "tasks.generation.requests",
    ),
    expensive=True,
)
