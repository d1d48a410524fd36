"""A GGUF file to a Hugging Face directory: bfloat16 safetensors, config, tokenizer; one block in memory at a time."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from model.gguf import GgufFile
from model.safetensors import Stored, Written, blocks, write_directory
from tasks.progress import track
from tasks.teacher.vocabulary import Metadata, tokenizer_files

DTYPE, MAX_SHARD_BYTES = "bfloat16", 5 * 10**9


def convert(source: Path, target: Path) -> dict[str, Any]:
    """Write `target` as a Hugging Face directory and return its config.

    Raises:
        ValueError: an architecture or a tensor that is not known.
    """
    file = GgufFile(source)
    ids = _token_ids(file.metadata)
    config = file.config | {"dtype": DTYPE} | ids
    target.mkdir(parents=True, exist_ok=True)
    # Ids only in the second: sampling is said in every request, never taken from a file beside the weights.
    files = {"config.json": config, "generation_config.json": ids, **tokenizer_files(file.metadata)}
    for name, content in files.items():
        text = json.dumps(content, ensure_ascii=False, indent=1 if name != "tokenizer.json" else None)
        (target / name).write_text(text + "\n", encoding="utf-8")
    with track("convert weights", len(file.tensors), unit="tensors") as bar:

        def told(tensor: Stored) -> Iterator[np.ndarray]:
            yield from blocks(tensor, DTYPE)
            bar.advance(1)

        tensors: dict[str, Written] = {
            name: (tensor.shape, lambda tensor=tensor: told(tensor)) for name, tensor in file.tensors.items()
        }
        write_directory(target, tensors, DTYPE, MAX_SHARD_BYTES)
    return config


def _token_ids(metadata: Metadata) -> dict[str, int]:
    kinds = {"bos": "bos", "eos": "eos", "pad": "padding"}
    return {f"{short}_token_id": metadata[f"tokenizer.ggml.{name}_token_id"] for short, name in kinds.items()}
