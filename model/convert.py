"""Weights between Hugging Face directories and our decoder, tensor by tensor, both ways.

Reading places each device's part straight from the file; writing goes to a temporary directory first, so that files
appear whole. A checkpoint read and written in its own dtype gives the same file, byte for byte.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding
from safetensors import SafetensorError, safe_open

from model.config import DecoderConfig
from model.decoder import Decoder
from model.families import FAMILIES
from model.families.weights import Weight
from model.loop import abstract_params, join_model, split_model

_SAFETENSORS_NAMES = {"float32": "F32", "bfloat16": "BF16"}


def config_from_hf(directory: str | Path) -> DecoderConfig:
    """The decoder that `config.json` describes; an architecture that no family knows is refused."""
    path = Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): a Hugging Face model directory says its shape there. "
            "Point to a directory that has config.json and *.safetensors."
        ) from error
    for family in FAMILIES.values():
        if config.get("model_type") in family.HF_MODEL_TYPES:
            return family.from_hf_config(config)
    raise ValueError(
        f"{path} says model_type={config.get('model_type')!r}: each family needs its own weight table and mathematics. "
        f"Use a model of {', '.join(kind for f in FAMILIES.values() for kind in f.HF_MODEL_TYPES)}."
    )


def load_hf(directory: str | Path, cfg: DecoderConfig | None = None, *, mesh: Mesh | None = None) -> Decoder:
    """The decoder with the float32 weights of a Hugging Face directory, cut over the mesh when one is given.

    `cfg` says how to compute, and what shape is expected (config.json's when it is None). Nothing is padded or cut to
    fit: missing, extra and misshaped tensors are reported all together.
    """
    cfg = cfg or config_from_hf(directory)
    family = FAMILIES[cfg.family]
    weights = {weight.path: weight for weight in family.weights(cfg)}
    with _Files(Path(directory), family.PREFIX, family.OTHER_PARTS) as files:
        like = abstract_params(cfg, mesh=mesh)
        _check_names_and_shapes(files, cfg, weights, like)
        not_finite: list[str] = []

        def load(path: tuple[Any, ...], array: jax.ShapeDtypeStruct) -> jax.Array:
            weight = weights[_joined(path)]
            where = array.sharding or SingleDeviceSharding(jax.devices()[0])

            def part(index: Any) -> np.ndarray:
                return _read_part(files, weight, array.shape, index, not_finite)

            return jax.make_array_from_callback(array.shape, where, part)

        params = jax.tree_util.tree_map_with_path(load, like)
    if not_finite:
        raise ValueError(
            f"{directory} has NaN or infinity in {_some(not_finite)}: one such number makes every output NaN. "
            "Fetch or convert the checkpoint again; if it was trained so, use an earlier one."
        )
    return join_model(cfg, params)


def save_hf(
    model: Decoder,
    directory: str | Path,
    *,
    dtype: str = "bfloat16",
    hf_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = 5 * 10**9,
) -> None:
    """Write config.json and safetensors as transformers does; the files appear when all of them are whole.

    Other files in the directory (a tokenizer, say) stay. `hf_config` adds to or replaces entries of config.json.
    """
    if dtype not in _SAFETENSORS_NAMES:
        raise ValueError(
            f"dtype={dtype!r} cannot be written: only {', '.join(_SAFETENSORS_NAMES)} keep what training needs. "
            "Choose one of them."
        )
    cfg, target = model.cfg, Path(directory)
    family = FAMILIES[cfg.family]
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / f".writing-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        config = family.to_hf_config(cfg, dtype) | dict(hf_config or {})
        (scratch / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        _write_weights(model, family.weights(cfg), scratch, dtype, max_shard_bytes)
        for stale in target.glob("model*.safetensors*"):
            stale.unlink()
        for path in sorted(scratch.iterdir()):
            path.replace(target / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


class _Files:
    """The safetensors files of a directory as one mapping name -> tensor slice, read on demand.

    Args:
        prefix: taken from the names that have it.
        other_parts: beginnings of the names that are left out.
    """

    def __init__(self, directory: Path, prefix: str = "", other_parts: tuple[str, ...] = ()):
        self.directory = directory
        self.tensors: dict[str, Any] = {}
        paths = sorted(directory.glob("*.safetensors"))
        if not paths:
            raise ValueError(
                f"{directory} has no *.safetensors file: weights are read in that format only, because unpickling "
                "a downloaded file runs its code. Convert the checkpoint with transformers' save_pretrained first."
            )
        for path in paths:
            try:
                file = safe_open(path, framework="numpy")
                self.tensors |= {
                    name.removeprefix(prefix): file.get_slice(name)
                    for name in file.keys()  # noqa: SIM118
                    if not name.startswith(other_parts)
                }
            except SafetensorError as error:
                raise ValueError(
                    f"{path} ({path.stat().st_size:,} bytes) is damaged ({error}): its header promises more or other "
                    "bytes than are there. Fetch it again and compare its size and checksum with the source's."
                ) from error

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *_: object) -> None:
        self.tensors.clear()


def _check_names_and_shapes(files: _Files, cfg: DecoderConfig, weights: dict[str, Weight], like: Any) -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for path, array in jax.tree_util.tree_flatten_with_path(like)[0]:
        weight = weights[_joined(path)]
        for layer in range(cfg.num_layers if weight.is_stacked else 1):
            expected[weight.hf_name.format(layer=layer)] = weight.hf_shape(array.shape)
    found = {name: tuple(tensor.get_shape()) for name, tensor in files.tensors.items()}
    problems = [f"missing: {_some(sorted(expected.keys() - found.keys()))}"] if expected.keys() - found.keys() else []
    if extra := sorted(found.keys() - expected.keys()):
        problems.append(f"extra: {_some(extra)}")
    shared = sorted(expected.keys() & found.keys())
    if wrong := [f"{n} is {list(found[n])}, not {list(expected[n])}" for n in shared if found[n] != expected[n]]:
        problems.append(f"misshaped: {_some(wrong)}")
    if problems:
        raise ValueError(
            f"{files.directory} does not fit {cfg.family} with {cfg.num_layers} layers, embed_dim={cfg.embed_dim}, "
            f"vocab_size={cfg.vocab_size}:\n  "
            + "\n  ".join(problems)
            + "\nEvery weight has exactly one place, and nothing "
            "is padded or cut to fit. Choose the size that matches the checkpoint (config.json says its shape)."
        )


def _read_part(
    files: _Files, weight: Weight, shape: tuple[int, ...], index: tuple[slice, ...], not_finite: list[str]
) -> np.ndarray:
    """The part `index` of our array, float32, from the slices of Hugging Face tensors that hold it."""
    bounds = [slice(*s.indices(size)[:2]) for s, size in zip(index, shape, strict=True)]
    layers = range(bounds[0].start, bounds[0].stop) if weight.is_stacked else range(1)
    own = bounds[1:] if weight.is_stacked else bounds
    part = np.empty((len(layers), *(bound.stop - bound.start for bound in own)), np.float32)
    for i, layer in enumerate(layers):
        name = weight.hf_name.format(layer=layer)
        part[i] = weight.read(files.tensors[name], own)
        if not np.isfinite(part[i]).all() and name not in not_finite:
            not_finite.append(name)
    return part if weight.is_stacked else part[0]


def _write_weights(
    model: Decoder, weights: tuple[Weight, ...], directory: Path, dtype: str, max_shard_bytes: int
) -> None:
    _, params = split_model(model)
    arrays = {_joined(path): array for path, array in jax.tree_util.tree_flatten_with_path(params)[0]}
    tensors: dict[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]] = {}
    for weight in weights:
        array = arrays[weight.path]
        for layer in range(array.shape[0] if weight.is_stacked else 1):
            tensors[weight.hf_name.format(layer=layer)] = (
                weight.hf_shape(array.shape),
                lambda weight=weight, array=array, layer=layer: weight.write(array, layer, dtype),
            )
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
    weight_map: dict[str, str] = {}
    for i, names in enumerate(shards):
        file = "model.safetensors" if len(shards) == 1 else f"model-{i + 1:05d}-of-{len(shards):05d}.safetensors"
        _write_safetensors(directory / file, {name: tensors[name] for name in names}, dtype)
        weight_map |= dict.fromkeys(names, file)
    if len(shards) > 1:
        total = sum(width * int(np.prod(shape)) for shape, _ in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _write_safetensors(
    path: Path, tensors: Mapping[str, tuple[tuple[int, ...], Callable[[], np.ndarray]]], dtype: str
) -> None:
    """Same bytes as safetensors' own writer (a JSON header, then data), but one tensor in memory at a time."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset, width = 0, jnp.dtype(dtype).itemsize
    for name, (shape, _) in sorted(tensors.items()):
        end = offset + width * int(np.prod(shape))
        header[name] = {"dtype": _SAFETENSORS_NAMES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, (_, read) in sorted(tensors.items()):
            file.write(np.ascontiguousarray(read()).data.cast("B") if dtype == "float32" else read().tobytes())
        file.flush()
        os.fsync(file.fileno())


def _joined(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)


def _some(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def hf_tensors(directory: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and content of every tensor in a directory, one at a time."""
    with _Files(Path(directory)) as files:
        for name, tensor in files.tensors.items():
            yield name, tensor[:]
