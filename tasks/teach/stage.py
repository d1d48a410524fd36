"""The teach stage: every record of a pack artifact read once by a teacher, file by file, in the order of the files."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xxhash
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]
from array_record.python.array_record_data_source import ArrayRecordDataSource

from model.convert import config_from_hf, load_hf
from model.decoder import Decoder
from model.generate import next_words
from tasks.artifact import Artifact, Stage, Workspace, open_artifact
from tasks.errors import ConfigError
from tasks.progress import track
from tasks.taught import pack_taught
from tasks.teach.config import TeachConfig
from tasks.tokens import TextTokenizer, tokenizer_prefix

ARRAY_RECORD = "group_size:1,zstd:3"
RECORDS = 256  # read and sorted by length together


def teach(workspace: Workspace, config: TeachConfig, inputs: dict[str, Artifact]) -> None:
    """Write for each file of records one of the same name, with a record for each of its records."""
    data, teacher = inputs["data"], inputs["model"]
    mixture, directory = data.read_json("mixture.json"), teacher.local_dir("model/")
    tokenizer = TextTokenizer(directory)
    _require_same_tokens(data, directory)
    model: Decoder | None = None
    files = [file for source in mixture["sources"] for file in source["files"]]
    with track(f"teach {workspace.name}", sum(s["records"] for s in mixture["sources"]), unit="records") as bar:
        for file in files:
            source = ArrayRecordDataSource([str(data.local_dir() / file)])
            count = len(source)  # pyright: ignore[reportArgumentType]
            if workspace.unit_record(file) is None:
                model = model or _open(directory, config)
                with workspace.unit(file) as unit, contextlib.ExitStack() as stack:
                    path = unit.local_file(file, rows=count)
                    writer = array_record_module.ArrayRecordWriter(str(path), ARRAY_RECORD)
                    stack.callback(writer.close)
                    unit.count(rows_in=count)
                    for said in _said(model, tokenizer, config, source, mixture["kind"], file):
                        writer.write(said)
                        unit.count(rows_out=1)
                        bar.advance(1)
            else:
                bar.advance(count)
    workspace.note(words=config.words, choose=config.choose)


def _said(
    model: Decoder, tokenizer: TextTokenizer, config: TeachConfig, source: ArrayRecordDataSource, kind: str, file: str
) -> Iterator[bytes]:
    window = min(config.window or model.cfg.max_seq_len, model.cfg.max_seq_len)
    count = len(source)  # pyright: ignore[reportArgumentType]
    for start in range(0, count, RECORDS):
        records = [json.loads(source[i]) for i in range(start, min(start + RECORDS, count))]
        texts = [_ids(tokenizer, record, kind) for record in records]
        seeds = None
        if config.choose == "drawn":  # by the record's name: the same whatever stands beside it
            seeds = [xxhash.xxh32_intdigest(f"{file}:{record['id']}".encode(), config.seed) for record in records]
        found = next_words(
            model,
            [ids.tolist() for ids in texts],
            config.words,
            seeds=seeds,
            window=window,
            batch_size=max(1, config.batch_tokens // min(window, max(map(len, texts)))),
        )
        for ids, (words, shares) in zip(texts, found, strict=True):
            yield pack_taught(ids, words, shares)


def _ids(tokenizer: TextTokenizer, record: dict[str, Any], kind: str) -> np.ndarray:
    """The ids that the feed of a student makes of it."""
    return tokenizer.document(record["text"]) if kind == "text" else np.asarray(tokenizer.chat(record["messages"])[0])


def _open(directory: Path, config: TeachConfig) -> Decoder:
    try:
        cfg = config_from_hf(directory)
        if config.words > cfg.vocab_size:
            raise ConfigError(
                f"words={config.words} of a vocabulary of {cfg.vocab_size}: there are not so many. Use fewer."
            )
        is_one_cpu = len(jax.devices()) == 1 and jax.devices()[0].platform == "cpu"
        compute = replace(cfg.compute, dtype=config.dtype, loss_chunk_tokens=512, cpu_kernels=is_one_cpu)
        return load_hf(directory, replace(cfg, compute=compute))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _require_same_tokens(data: Artifact, directory: Path) -> None:
    """The teacher's words must be the student's: the same vocabulary file, byte for byte."""
    parent = data.manifest.parents.get("tokenizer")
    theirs = None
    if parent is not None:
        own = open_artifact(parent.url)
        theirs = own.local_dir(tokenizer_prefix(entry.path for entry in own.files())) / "tokenizer.json"
    if theirs is None or theirs.read_bytes() != (directory / "tokenizer.json").read_bytes():
        raise ConfigError(
            f"the records of {data.url} were counted with {theirs or 'an unknown tokenizer'}, the teacher in "
            f"{directory} has another: its words would have other meanings. Pack the data with the teacher's "
            "tokenizer, or choose a teacher that was trained with this one."
        )


TEACH = Stage(
    name="teach",
    version="1",
    run=teach,
    code=("tasks.teach", "tasks.taught", "tasks.tokens", "tasks.turns", "model"),
    expensive=True,
)
