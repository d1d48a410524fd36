"""Documents -> chunks -> requests -> answers -> gates -> synthetic documents, in units of a few dozen requests."""

import contextlib
import hashlib
import heapq
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.errors import DataFault
from tasks.gates import YieldWatch
from tasks.generation.answer_store import AnswerStore, answers_url
from tasks.generation.answers import Reply, answer_all, note_totals
from tasks.generation.requests import DeadLetter, Request, model_identity
from tasks.generation.server import policy_for, served
from tasks.records import DOCUMENT, document_id, meta_json, table
from tasks.shards import read_documents
from tasks.synth.config import SynthConfig
from tasks.synth.recipes import RECIPES
from tasks.synth.recipes.recipe import CountTokens, NotKept, Recipe

INPUT = "train/"
OVERSAMPLE = 4  # documents read for each request, at first


@dataclass(frozen=True)
class Item:
    """One chunk of one document and the question about it."""

    document: Mapping[str, Any]
    index: int  # of the chunk in the document
    chunk: str
    request: Request


def synthesize(workspace: Workspace, config: SynthConfig, inputs: dict[str, Artifact]) -> None:
    """Write `docs/NNNNN.parquet` (DOCUMENT); one row in is one request.

    Raises:
        DataFault: no document suits the recipe, or too few answers pass the gates.
        HostFault: the teacher cannot be served.
    """
    teacher = inputs["teacher"]
    facts = teacher.read_json("teacher.json")
    model_dir = teacher.local_dir("model")
    identity = model_identity(facts["name"], teacher.manifest.content_digest)
    recipe = RECIPES[config.recipe]
    items = choose(inputs["documents"], config, recipe, identity, facts["chat"], token_counter(model_dir))
    if not items:
        raise DataFault(
            f"{inputs['documents'].url}: no piece of its {INPUT} documents suits recipe {config.recipe!r} (language="
            f"{config.language}, chunk_tokens={config.chunk_tokens}): a recipe needs passages of prose, or functions "
            "without docstrings, that fit. Choose other documents, raise chunk_tokens, or use another recipe."
        )
    size = config.unit_requests
    units = {f"{n // size:05d}": items[n : n + size] for n in range(0, len(items), size)}
    workspace.note(licences=facts["licence"], teachers=facts["name"])
    workspace.expect_units(len(units))
    watch = YieldWatch(workspace.name, preview=config.preview_requests, least=config.min_yield)
    missing = watch.take(units, workspace.unit_record)
    first = list(units)[: -(-config.preview_requests // size)]  # judged before anything else is asked
    with served(model_dir, config.serving, workspace.scratch.parent / "servers") as generator:
        for group in ([key for key in missing if key in first], [key for key in missing if key not in first]):
            asking = answer_all(
                (item.request for key in group for item in units[key]),
                generator,
                AnswerStore(answers_url(workspace.url)),
                policy=policy_for(config.serving),
                label=f"synth {workspace.name}",
                total=sum(len(units[key]) for key in group),
            )
            with contextlib.closing(asking) as replies:
                for key in group:
                    with workspace.unit(key) as unit:
                        write_unit(unit, units[key], replies, config, facts)
                    watch.take([key], workspace.unit_record)
                for _ in replies:  # lets the engine close its books
                    pass
    note_totals(workspace)


def choose(
    documents: Artifact, config: SynthConfig, recipe: Recipe, model: str, chat: bool, count: CountTokens
) -> list[Item]:
    """The first `max_requests` chunks of documents in an order that depends on nothing but the seed and their ids."""
    order = {
        row_id: hashlib.sha256(f"{config.seed} {row_id}".encode()).digest()
        for batch in read_documents(documents, INPUT, ["id"])
        for row_id in batch["id"].to_pylist()
    }
    wanted = OVERSAMPLE * config.max_requests
    while True:  # some documents hold nothing for the recipe: take more until there is enough
        ids = set(heapq.nsmallest(wanted, order, key=order.__getitem__))
        rows = [row for batch in read_documents(documents, INPUT) for row in batch.to_pylist() if row["id"] in ids]
        rows.sort(key=lambda row: order[row["id"]])
        items = list(itertools.islice(_items(rows, config, recipe, model, chat, count), config.max_requests))
        if len(items) == config.max_requests or len(ids) == len(order):
            return items
        wanted *= OVERSAMPLE


def _items(
    rows: Sequence[Mapping[str, Any]], config: SynthConfig, recipe: Recipe, model: str, chat: bool, count: CountTokens
) -> Iterator[Item]:
    for row in rows:
        chunks = itertools.islice(recipe.chunks(row["text"], config, count), config.chunks_per_document)
        for index, chunk in enumerate(chunks):
            ask = recipe.ask(chunk, config, chat)
            yield Item(row, index, chunk, Request(model, ask.kind, ask.prompt, ask.sampling))


def write_unit(
    unit: Unit,
    items: Sequence[Item],
    replies: Iterator[tuple[Request, Reply]],
    config: SynthConfig,
    teacher: Mapping[str, Any],
) -> None:
    """Judge the replies of one unit and write what passes."""
    recipe = RECIPES[config.recipe]
    kept: list[dict[str, Any]] = []
    seen: set[str] = set()
    books: Counter[str] = Counter()
    cost = 0.0
    for item in items:
        request, reply = next(replies)
        assert request is item.request
        unit.count(rows_in=1)
        row = {"id": item.document["id"], "url": item.document["url"], "chunk": item.chunk}
        if isinstance(reply, DeadLetter):
            unit.drop(f"dead_{reply.reason}", row | {"message": reply.message, "attempts": reply.attempts})
            continue
        books.update(prompt_tokens=reply.prompt_tokens, completion_tokens=reply.completion_tokens)
        cost += reply.cost
        try:
            text = recipe.accept(item.chunk, reply, config)
            if text in seen:
                raise NotKept("duplicate")
        except NotKept as gate:
            unit.drop(str(gate), row | {"answer": reply.text, "finish": reply.finish})
            continue
        seen.add(text)
        kept.append(_document(item, text, config, recipe, teacher))
        unit.count(rows_out=1)
    unit.write_parquet(f"docs/{unit.key}.parquet", table(kept, DOCUMENT))
    unit.note(**books, cost=round(cost, 6))


def _document(item: Item, text: str, config: SynthConfig, recipe: Recipe, teacher: Mapping[str, Any]) -> dict[str, Any]:
    source = f"synth/{recipe.source}" if config.language == "python" else f"synth/{recipe.source}-{config.language}"
    origin = item.document
    return {
        "id": document_id(source, origin["url"], text),
        "text": text,
        "url": origin["url"],
        "source": source,
        "language": config.language,
        "licence": origin["licence"],
        "crawl_time": origin["crawl_time"],
        "meta": meta_json(
            origin=origin["id"],
            origin_source=origin["source"],
            chunk=item.index,
            recipe=config.recipe,
            teacher=teacher["name"],
            teacher_licence=teacher["licence"],
            request=item.request.digest,
        ),
    }


def token_counter(model_dir: Path) -> CountTokens:
    """How many tokens of the teacher a text is."""
    tokenizer = Tokenizer.from_file(str(model_dir / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)


SYNTH = Stage(
    name="synth",
    version="1",
    run=synthesize,
    code=("tasks.synth.synthesize", "tasks.synth.recipes", "tasks.gates", "tasks.generation.requests"),
    expensive=True,
)
