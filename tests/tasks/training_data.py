"""Artifacts made from plain rows, and real text when it is there: for the tests of pack and train."""

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from flax import nnx

from model.config import DecoderConfig
from model.convert import save_hf
from model.decoder import Decoder
from tasks.artifact import Artifact, Stage, produce
from tasks.config import StageConfig
from tasks.pack.config import PackConfig, SourceShare, TokenizerConfig
from tasks.pack.mixture import PACK
from tasks.pack.tokenizer import TOKENIZER
from tasks.records import CHAT, DOCUMENT, document_id, table
from tasks.tokens import TextTokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
Rows = Sequence[Mapping[str, str]]


class Content(StageConfig):
    """So that other rows make another artifact."""

    digest: str


def make_artifact(store: Path, name: str, files: Mapping[str, Rows], schema: pa.Schema = DOCUMENT) -> Artifact:
    """A finished artifact with these Parquet files."""

    def run(workspace, config, inputs):
        if workspace.unit_record("all") is None:
            with workspace.unit("all") as unit:
                for path, rows in files.items():
                    unit.write_parquet(path, table(rows, schema))

    digest = hashlib.sha256(json.dumps(files).encode()).hexdigest()
    return produce(str(store), Stage("dedup", "1", run, ("tasks.records",)), name, Content(digest=digest), {})


def document(text: str, language: str = "en", source: str = "test") -> dict[str, str]:
    facts = {"text": text, "language": language, "source": source, "licence": "CC0-1.0", "meta": "{}"}
    return dict.fromkeys(DOCUMENT.names, "") | facts | {"id": document_id(source, "", text)}


def chat(messages: Sequence[Mapping[str, str]] | str, language: str = "en") -> dict[str, str]:
    text = messages if isinstance(messages, str) else json.dumps(messages, ensure_ascii=False)
    facts = {"messages": text, "language": language, "source": "test", "meta": "{}"}
    return dict.fromkeys(CHAT.names, "") | facts | {"id": document_id("test", "", text)}


def turns(*contents: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]


def load_real_texts() -> list[str]:
    """Japanese, English and Python texts, about 2 MB; skips the test when they are not there."""
    if not SHARED.is_dir():
        pytest.skip(f"real text is not at {SHARED}")
    texts: list[str] = []
    for name, most in (
        ("corpus-ja/techdoc-js-primer", 60),
        ("corpus-ja/aozora", 8),
        ("corpus-en/techdoc-rustbook-en", 60),
    ):
        with gzip.open(SHARED / f"{name}.jsonl.gz", "rt") as file:
            texts += [json.loads(line)["text"][:20_000] for _, line in zip(range(most), file, strict=False)]
    return [*texts, *(path.read_text() for path in sorted(Path(json.__file__).parent.glob("*.py")))]


def make_tokenizer(store: Path, vocab_size: int = 400, texts: Sequence[str] = ()) -> Artifact:
    """A tokenizer artifact learnt from a few sentences (or these texts)."""
    words = "word one two three the quick brown fox jumps over lazy dogs again and again わたしは日本語を話します"
    rows = [document(f"{words} {i} {words[i:]}") for i in range(60)] + [document(text) for text in texts]
    artifact = make_artifact(store, "tokenizer-text", {"train/00000.parquet": rows})
    config = TokenizerConfig(vocab_size=vocab_size, sample_bytes=10**7)
    return produce(str(store), TOKENIZER, "test", config, {"documents.0": artifact})


def make_model(store: Path, tokenizer: Artifact, cfg: DecoderConfig, seed: int = 0) -> Artifact:
    """A model artifact of random weights, with this tokenizer."""
    cfg = replace(cfg, vocab_size=TextTokenizer(tokenizer.local_dir()).vocab_size)

    def run(workspace, config, inputs):
        if workspace.unit_record("all") is None:
            directory = workspace.scratch / "model"
            save_hf(Decoder(cfg, rngs=nnx.Rngs(seed)), directory, dtype="float32")
            with workspace.unit("all") as unit:
                for path in (*directory.iterdir(), *tokenizer.local_dir().iterdir()):
                    unit.add_file(f"model/{path.name}", path)

    stage = Stage("train", "1", run, ("tasks.records",))
    return produce(str(store), stage, "random", Content(digest=repr((cfg, seed))), {"tokenizer": tokenizer})


def make_pack(store: Path, tokenizer: Artifact, sources: Mapping[str, Rows], **changes) -> Artifact:
    """A pack artifact of one document artifact (or conversations, kind="chat") a source."""
    schema = CHAT if changes.get("kind") == "chat" else DOCUMENT
    shares = tuple(
        SourceShare(name=name, language="en", input=i, weight=1 + i, max_epochs=100) for i, name in enumerate(sources)
    )
    inputs = {"tokenizer": tokenizer}
    for i, (name, rows) in enumerate(sources.items()):
        half = len(rows) // 2 or 1
        files = {"train/00000.parquet": rows[:half], "train/00001.parquet": rows[half:]}
        inputs[f"documents.{i}"] = make_artifact(
            store, name, {path: part for path, part in files.items() if part}, schema
        )
    config = PackConfig(**({"kind": "text", "sources": shares, "total_tokens": None} | changes))
    return produce(str(store), PACK, "test", config, inputs)
