"""Safetensors files: parts of tensors read on demand, and tensors written a block at a time.

Neither side ever holds more than one tensor: reading maps the file for as long as one part is copied (what stays mapped
counts as memory of the process), writing needs only shapes before the first byte.
"""

import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

READABLE = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
WRITTEN = {"float32": "F32", "bfloat16": "BF16"}
BLOCK_BYTES = 64 * 2**20


class Stored(Protocol):
    """A tensor in a file; indexing it reads the part that is asked for."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, index: Any) -> np.ndarray: ...


# Shape of a tensor to be written, and its content in blocks of whole rows
Written = tuple[tuple[int, ...], Callable[[], Iterator[np.ndarray]]]


@dataclass(frozen=True)
class _Mapped:
    path: Path
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def __getitem__(self, index: Any) -> np.ndarray:
        return np.array(np.memmap(self.path, self.dtype, "r", self.offset, self.shape)[index])


def read_directory(directory: Path, prefix: str = "", other_parts: tuple[str, ...] = ()) -> dict[str, Stored]:
    """Every tensor of a directory's safetensors files by name.

    Args:
        prefix: taken from the names that have it.
        other_parts: beginnings of the names that are left out.
    """
    paths = sorted(directory.glob("*.safetensors"))
    if not paths:
        raise ValueError(
            f"{directory} has no *.safetensors file: weights are read in that format only, because unpickling "
            "a downloaded file runs its code. Convert the checkpoint with transformers' save_pretrained first."
        )
    return {
        name.removeprefix(prefix): tensor
        for path in paths
        for name, tensor in _read_header(path).items()
        if not name.startswith(other_parts)
    }


def _read_header(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="numpy"):  # compares the header with the length of the file
            pass
    except SafetensorError as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is damaged ({error}): its header promises more or other "
            "bytes than are there. Fetch it again and compare its size and checksum with the source's."
        ) from error
    with path.open("rb") as file:
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    if other := sorted({entry["dtype"] for entry in header.values()} - READABLE.keys()):
        raise ValueError(
            f"{path} holds numbers of type {', '.join(other)}: known are {', '.join(READABLE)}, and a quantised type "
            "means nothing without its scales. Use the checkpoint that it was quantised from."
        )
    return {
        name: _Mapped(
            path,
            8 + length + entry["data_offsets"][0],
            jnp.dtype(READABLE[entry["dtype"]]),
            tuple(entry["shape"]),
        )
        for name, entry in header.items()
    }


def blocks(tensor: Stored, dtype: str) -> Iterator[np.ndarray]:
    """A stored tensor in blocks of whole rows, rounded to `dtype`."""
    rows = tensor.shape[0]
    step = max(1, BLOCK_BYTES // (4 * int(np.prod(tensor.shape[1:]))))
    for start in range(0, rows, step):
        yield tensor[start : start + step].astype(jnp.dtype(dtype), copy=False)


def write_directory(directory: Path, tensors: Mapping[str, Written], dtype: str, max_shard_bytes: int) -> None:
    """`model.safetensors`, or shards in the order of `tensors` and their index, named as transformers does."""
    width, shards = jnp.dtype(dtype).itemsize, _shards(tensors, dtype, max_shard_bytes)
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_file(directory / file, {name: tensors[name] for name in names}, dtype)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(width * int(np.prod(shape)) for shape, _ in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def read_along(tensors: Mapping[str, Written], dtype: str, max_shard_bytes: int) -> None:
    """Read what `write_directory` reads, in its order: the part of a process that shares the arrays with the writer."""
    for names in _shards(tensors, dtype, max_shard_bytes):
        for name in sorted(names):
            for _ in tensors[name][1]():
                pass


def _shards(tensors: Mapping[str, Written], dtype: str, max_shard_bytes: int) -> list[list[str]]:
    width = jnp.dtype(dtype).itemsize
    shards: list[list[str]] = [[]]
    size = 0
    for name, (shape, _) in tensors.items():
        tensor_bytes = width * int(np.prod(shape))
        if shards[-1] and size + tensor_bytes > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += tensor_bytes
    return shards


def _write_file(path: Path, tensors: Mapping[str, Written], dtype: str) -> None:
    """Same bytes as safetensors' own writer: a JSON header, then data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, width = 0, jnp.dtype(dtype).itemsize
    for name, (shape, _) in sorted(tensors.items()):
        end = offset + width * int(np.prod(shape))
        header[name] = {"dtype": WRITTEN[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, read) in sorted(tensors.items()):
            for block in read():
                file.write(np.ascontiguousarray(block).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
