"""Weights between files and our decoder, tensor by tensor: Hugging Face directories both ways, GGUF files in.

Reading places each device's part straight from the file; writing goes to a temporary directory first, so that files
appear whole. A checkpoint read and written in its own dtype gives the same file, byte for byte.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, SingleDeviceSharding

from model.config import DecoderConfig
from model.decoder import Decoder
from model.families import FAMILIES
from model.families.weights import Weight
from model.gguf import GgufFile
from model.loop import abstract_params, join_model, split_model
from model.safetensors import WRITTEN, Stored, Written, blocks, read_along, read_directory, write_directory

MAX_SHARD_BYTES = 5 * 10**9


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
    return _family(config, str(path)).from_hf_config(config)


def _family(config: Mapping[str, Any], where: str) -> ModuleType:
    for family in FAMILIES.values():
        if config.get("model_type") in family.HF_MODEL_TYPES:
            return family
    raise ValueError(
        f"{where} says model_type={config.get('model_type')!r}: each family needs its own weight table and "
        f"mathematics. Use a model of {', '.join(kind for f in FAMILIES.values() for kind in f.HF_MODEL_TYPES)}."
    )


def load_hf(directory: str | Path, cfg: DecoderConfig | None = None, *, mesh: Mesh | None = None) -> Decoder:
    """The decoder with the float32 weights of a Hugging Face directory, cut over the mesh when one is given.

    `cfg` says how to compute, and what shape is expected (config.json's when it is None). Nothing is padded or cut to
    fit: missing, extra and misshaped tensors are reported all together.
    """
    cfg = cfg or config_from_hf(directory)
    return _load(StoredWeights.of_directory(directory, cfg), mesh)


def load_gguf(path: str | Path, cfg: DecoderConfig | None = None, *, mesh: Mesh | None = None) -> Decoder:
    """The decoder with the dequantised weights of a GGUF file; otherwise as `load_hf`."""
    file = GgufFile(path)
    own: DecoderConfig = _family(file.config, str(path)).from_hf_config(file.config)
    return _load(StoredWeights(file.tensors, cfg or own, str(path)), mesh)


class StoredWeights:
    """The weights of a decoder as they lie in files, of which any part can be read alone.

    Raises:
        ValueError: tensors are missing, left over or of another shape; all of them are named.
    """

    def __init__(self, tensors: Mapping[str, Stored], cfg: DecoderConfig, where: str):
        self.tensors, self.cfg, self.where = tensors, cfg, where
        self.weights = {weight.path: weight for weight in FAMILIES[cfg.family].weights(cfg)}
        self.shapes = {path: array.shape for path, array in _named(abstract_params(cfg)).items()}
        self.not_finite: list[str] = []
        """Tensors in which a part that was read held NaN or infinity."""
        self._check_names_and_shapes()

    @classmethod
    def of_directory(cls, directory: str | Path, cfg: DecoderConfig) -> "StoredWeights":
        family = FAMILIES[cfg.family]
        return cls(read_directory(Path(directory), family.PREFIX, family.OTHER_PARTS), cfg, str(directory))

    def read(self, path: str, index: tuple[slice, ...]) -> np.ndarray:
        """The part `index` of one of our arrays, float32, from the slices of the tensors that hold it."""
        weight, shape = self.weights[path], self.shapes[path]
        bounds = [slice(*s.indices(size)[:2]) for s, size in zip(index, shape, strict=True)]
        part = np.empty([bound.stop - bound.start for bound in bounds], np.float32)
        for place, name in weight.tensors(bounds):
            at = tuple(i - bound.start for i, bound in zip(place, bounds, strict=False))
            part[at] = weight.read(self.tensors[name], bounds[weight.num_stacked :])
            self._note(name, part[at])
        return part

    def blocks(self, name: str, dtype: str) -> Iterator[np.ndarray]:
        """One tensor as it lies in the file, in blocks of whole rows rounded to `dtype`."""
        for block in blocks(self.tensors[name], dtype):
            self._note(name, block)
            yield block

    def check_finite(self) -> None:
        """Refuse what was read so far if it holds a number that is none."""
        if self.not_finite:
            raise ValueError(
                f"{self.where} has NaN or infinity in {_some(self.not_finite)}: one such number makes every output "
                "NaN. Fetch or convert the checkpoint again; if it was trained so, use an earlier one."
            )

    def _note(self, name: str, part: np.ndarray) -> None:
        if not np.isfinite(part).all() and name not in self.not_finite:
            self.not_finite.append(name)

    def _check_names_and_shapes(self) -> None:
        cfg, expected = self.cfg, tensor_shapes(self.cfg)
        found = {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}
        missing = sorted(expected.keys() - found.keys())
        problems = [f"missing: {_some(missing)}"] if missing else []
        if extra := sorted(found.keys() - expected.keys()):
            problems.append(f"extra: {_some(extra)}")
        shared = sorted(expected.keys() & found.keys())
        if wrong := [f"{n} is {list(found[n])}, not {list(expected[n])}" for n in shared if found[n] != expected[n]]:
            problems.append(f"misshaped: {_some(wrong)}")
        if problems:
            raise ValueError(
                f"{self.where} does not fit {cfg.family} with {cfg.num_layers} layers, embed_dim={cfg.embed_dim}, "
                f"vocab_size={cfg.vocab_size}:\n  "
                + "\n  ".join(problems)
                + "\nEvery weight has exactly one place, and nothing "
                "is padded or cut to fit. Choose the size that matches the checkpoint (config.json says its shape)."
            )


def _load(stored: StoredWeights, mesh: Mesh | None) -> Decoder:
    def load(path: tuple[Any, ...], array: jax.ShapeDtypeStruct) -> jax.Array:
        where = array.sharding or SingleDeviceSharding(jax.devices()[0])

        def part(index: Any) -> np.ndarray:
            return stored.read(_joined(path), index)

        return jax.make_array_from_callback(array.shape, where, part)

    params = jax.tree_util.tree_map_with_path(load, abstract_params(stored.cfg, mesh=mesh))
    stored.check_finite()
    return join_model(stored.cfg, params)


def save_hf(
    model: Decoder,
    directory: str | Path,
    *,
    dtype: str = "bfloat16",
    hf_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write config.json and safetensors as transformers does; the files appear when all of them are whole.

    Other files in the directory (a tokenizer, say) stay. `hf_config` adds to or replaces entries of config.json.
    Of several processes that share the model all must call it; the first writes.
    """
    cfg, arrays = model.cfg, _named(split_model(model)[1])
    tensors: dict[str, Written] = {}
    for weight in FAMILIES[cfg.family].weights(cfg):
        array = arrays[weight.path]
        for place, name in weight.tensors(_whole(array.shape)):
            tensors[name] = weight.hf_shape(array.shape), partial(_one_block, weight, array, place, dtype)
    _write(Path(directory), cfg, tensors, dtype, hf_config, max_shard_bytes)


def convert_hf(
    source: str | Path,
    directory: str | Path,
    *,
    dtype: str = "bfloat16",
    hf_config: Mapping[str, Any] | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
) -> None:
    """Write what `save_hf` of the loaded `source` would write, from disk to disk: no array is ever whole in memory.

    For a change of dtype or of shards, and for leaving out the parts of a model that do not read text.
    """
    stored = StoredWeights.of_directory(source, config_from_hf(source))
    tensors: dict[str, Written] = {
        name: (shape, partial(stored.blocks, name, dtype)) for name, shape in tensor_shapes(stored.cfg).items()
    }
    _write(Path(directory), stored.cfg, tensors, dtype, hf_config, max_shard_bytes, check=stored.check_finite)


def _write(
    target: Path,
    cfg: DecoderConfig,
    tensors: Mapping[str, Written],
    dtype: str,
    hf_config: Mapping[str, Any] | None,
    max_shard_bytes: int,
    check: Callable[[], None] | None = None,
) -> None:
    if dtype not in WRITTEN:
        raise ValueError(
            f"dtype={dtype!r} cannot be written: only {', '.join(WRITTEN)} keep what training needs. "
            "Choose one of them."
        )
    if jax.process_index():
        read_along(tensors, dtype, max_shard_bytes)
        return
    target.mkdir(parents=True, exist_ok=True)
    scratch = target / f".writing-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        config = FAMILIES[cfg.family].to_hf_config(cfg, dtype) | dict(hf_config or {})
        (scratch / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        write_directory(scratch, tensors, dtype, max_shard_bytes)
        if check is not None:
            check()
        for stale in target.glob("model*.safetensors*"):
            stale.unlink()
        for path in sorted(scratch.iterdir()):
            path.replace(target / path.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _one_block(weight: Weight, array: jax.Array, place: tuple[int, ...], dtype: str) -> Iterator[np.ndarray]:
    yield weight.write(array, place, dtype)


def tensor_shapes(cfg: DecoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint by its name, in the order in which shards are filled."""
    ours = _named(abstract_params(cfg))
    return {
        name: weight.hf_shape(ours[weight.path].shape)
        for weight in FAMILIES[cfg.family].weights(cfg)
        for _, name in weight.tensors(_whole(ours[weight.path].shape))
    }


def _whole(shape: tuple[int, ...]) -> list[slice]:
    return [slice(0, size) for size in shape]


def _named(tree: Any) -> dict[str, Any]:
    return {_joined(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _joined(path: tuple[Any, ...]) -> str:
    return "/".join(str(part.key) for part in path)


def _some(names: list[str], limit: int = 6) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def hf_tensors(directory: str | Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and content of every tensor in a directory, one at a time."""
    for name, tensor in read_directory(Path(directory)).items():
        yield name, tensor[...]
