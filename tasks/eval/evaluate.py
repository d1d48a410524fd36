"""The stage EVAL: every model answers every benchmark; a unit is one model on one benchmark in one language.

A killed evaluation redoes at most the unit in flight. Scores carry what they depend on: scoring path, dtype, batch,
context, versions, and the digest of the code that computed them.
"""

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.errors import DataFault
from tasks.eval.backend import NativeBackend
from tasks.eval.benchmarks import BENCHMARKS
from tasks.eval.config import EvalConfig
from tasks.eval.requests import Answer, Backend, Benchmark, Generate, Item, LogLikelihood, Material, Request, Settings
from tasks.inference import model_directory, read_config
from tasks.progress import track
from tasks.shards import read_documents

SCORES = "scores"
GENERATED = ("prompt", "answer", "reference")  # columns of an item that make a line of generations.jsonl


def run(ws: Workspace, config: EvalConfig, inputs: dict[str, Artifact]) -> None:
    """Score all units that are not finished, then write scores.json and generations.jsonl."""
    material = gather(config, inputs)
    models = [inputs[f"models.{i}"] for i in range(len(config.labels))]
    settings = _settings(config, models)
    questions = {
        (name, language): _load(BENCHMARKS[name], name, language, material, config, settings)
        for name, language in config.pairs()
    }
    ws.expect_units(len(questions) * len(models) + 1)
    total = sum(map(len, questions.values())) * len(models)
    with track(f"evaluate {ws.name}", total, "items") as bar:
        for label, model in zip(config.labels, models, strict=True):
            backend: Backend | None = None
            for (name, language), items in questions.items():
                key = _key(label, name, language)
                if ws.unit_record(key) is not None:
                    bar.resume(len(items))
                    continue
                if backend is None:  # a model is loaded when its first unit needs it, and let go after its last
                    backend = NativeBackend.open(model_directory(model), settings.context_tokens, config.batch_tokens)
                with ws.unit(key) as unit:
                    _score(unit, _Task(label, name, language), items, backend, settings)
                bar.advance(len(items), note=key)
    _sum_up(ws, config)


def gather(config: EvalConfig, inputs: Mapping[str, Artifact]) -> Material:
    """Held-out documents and conversations by language, sorted by id, so that no order of files matters."""
    documents: dict[str, dict[str, dict[str, Any]]] = {}
    for i in range(len(config.heldout)):
        for row in _heldout_rows(inputs[f"heldout.{i}"], "text"):
            documents.setdefault(row["language"], {})[row["id"]] = row
    conversations: dict[str, dict[str, dict[str, Any]]] = {}
    if config.instructions:
        for row in _heldout_rows(inputs["instructions"], "messages"):
            conversations.setdefault(row["language"], {})[row["id"]] = row
    return Material(documents=_sorted(documents), instructions=_sorted(conversations))


def _heldout_rows(artifact: Artifact, column: str) -> Iterator[dict[str, Any]]:
    for batch in read_documents(artifact, "heldout/", ["id", column, "language"]):
        if column not in batch.schema.names:
            raise DataFault(
                f"{artifact.url}: its heldout/ has no column {column!r}: documents have text, conversations have "
                "messages. Give documents (dedup, pack of kind text) to heldout and conversations (pack of kind chat) "
                "to instructions."
            )
        yield from batch.to_pylist()


@dataclass(frozen=True)
class _Task:
    label: str
    name: str
    language: str


def _score(unit: Unit, task: _Task, items: Sequence[Item], backend: Backend, settings: Settings) -> None:
    benchmark = BENCHMARKS[task.name]
    asked: list[tuple[Item, list[Request]]] = []
    for item in items:
        requests = benchmark.prompt(item, backend.codec, settings)
        if isinstance(requests, str):
            unit.drop(requests, {"id": item.id, **item.fields})
        else:
            asked.append((item, requests))
    if not asked:
        raise DataFault(
            f"{task.name} in {task.language} for model {task.label}: none of {len(items)} items can be asked with "
            f"context_tokens={settings.context_tokens} and max_new_tokens={settings.max_new_tokens}: a score of "
            "nothing would mean nothing. Raise context_tokens, lower max_new_tokens, or leave the task out."
        )
    answers = answer([request for _, requests in asked for request in requests], backend)
    rows = [
        benchmark.score(item, [next(answers) for _ in requests], backend.codec, task.language)
        for item, requests in asked
    ]
    unit.count(rows_in=len(items), rows_out=len(rows))
    unit.write_parquet(f"items/{task.name}-{task.language}/{task.label}.parquet", pa.Table.from_pylist(rows))
    facts = {"model": task.label, "task": task.name, "language": task.language}
    conditions = backend.describe() | {"context_tokens": settings.context_tokens, "python": platform.python_version()}
    unit.note(
        scores=[
            facts
            | {"metric": metric.name}
            | {key: value for key, value in asdict(metric).items() if key != "name"}
            | {"version": benchmark.VERSION, **conditions}
            for metric in benchmark.summarize(rows)
        ],
        generations=[facts | {"id": row["id"]} | row for row in rows if set(GENERATED) <= row.keys()],
    )


def answer(requests: Sequence[Request], backend: Backend) -> Iterator[Answer]:
    """The answers in the order of the requests; both kinds may be mixed."""
    likelihoods = iter(backend.loglikelihood([one for one in requests if isinstance(one, LogLikelihood)]))
    generations = iter(backend.generate([one for one in requests if isinstance(one, Generate)]))
    for one in requests:
        yield next(likelihoods) if isinstance(one, LogLikelihood) else next(generations)


def _sum_up(ws: Workspace, config: EvalConfig) -> None:
    if ws.unit_record(SCORES) is not None:
        return
    scores: list[dict[str, Any]] = []
    lines: list[str] = []
    for name, language in config.pairs():
        for label in config.labels:
            record = ws.unit_record(_key(label, name, language))
            assert record is not None, "every unit was just made"
            scores += record.facts["scores"]
            lines += [json.dumps(row, ensure_ascii=False, sort_keys=True) for row in record.facts["generations"]]
    with ws.unit(SCORES) as unit:
        unit.write_json("scores.json", scores)
        unit.write_bytes("generations.jsonl", "".join(f"{line}\n" for line in lines).encode(), rows=len(lines))


def _load(
    benchmark: Benchmark, name: str, language: str, material: Material, config: EvalConfig, settings: Settings
) -> list[Item]:
    items = benchmark.load(material, language, config.limit(name), settings)
    if not items:
        held = {key: len(rows) for key, rows in material.documents.items()}
        chats = {key: len(rows) for key, rows in material.instructions.items()}
        raise DataFault(
            f"{name} has no items in language {language!r}: held-out documents by language are {held}, conversations "
            f"{chats}. A benchmark is built from held-out rows of its language. Give an input that has some, or name "
            "the task for the languages that do, as in bits_per_byte:ja."
        )
    return items


def _settings(config: EvalConfig, models: Sequence[Artifact]) -> Settings:
    longest = min(int(read_config(model_directory(model))["max_position_embeddings"]) for model in models)
    if config.context_tokens is not None and config.context_tokens > longest:
        raise DataFault(
            f"context_tokens={config.context_tokens}, but one of the models was made for {longest}: positions beyond "
            f"that were never trained. Use {longest} or less, or leave it blank."
        )
    return Settings(
        context_tokens=config.context_tokens or longest,
        max_new_tokens=config.max_new_tokens,
        max_document_chars=config.max_document_chars,
    )


def _sorted(by_language: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    return {language: [rows[key] for key in sorted(rows)] for language, rows in sorted(by_language.items())}


def _key(label: str, name: str, language: str) -> str:
    return f"{label}/{name}-{language}"


EVAL = Stage(
    name="eval",
    version="1",
    run=run,
    code=("tasks.eval", "tasks.inference", "tasks.tokens", "tasks.turns", "model"),
    expensive=True,
)
