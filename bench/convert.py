"""Weights: how fast a checkpoint goes from disk to disk and what memory that takes; a 27B one through a small machine.

    python -m bench.convert [--embed-dim 1024] [--layers 16] [--rounds 3] [--skip-27b]

Headline: MB a second of a bfloat16 Gemma-2 checkpoint read and written again, byte for byte the same (`convert_hf`),
against transformers' from_pretrained and save_pretrained in bfloat16, each in a process of its own whose peak resident
memory is told, and which start their clock after their imports. `through float32`: load_hf and save_hf, the way of a
training run. Last, a checkpoint of Gemma-2 27B's shape (54 GB in sparse files, a page of numbers in every tensor) goes
disk to disk, each written shard being hashed and emptied when it is whole; and the parts that 4 of 256 chips hold are
read from it. No array of 27B numbers is ever made.
"""

import hashlib
import json
import os
import resource
import shutil
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import CACHE, ROOT, alternate, parser, publish, run_json

PAGE = 4096
ENGINE = [sys.executable, "-m", "bench.convert", "--engine"]


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--embed-dim", type=int, default=1024, help="of the checkpoint that is timed")
    options.add_argument("--layers", type=int, default=16, help="of the checkpoint that is timed")
    options.add_argument("--skip-27b", action="store_true", help="leave out the 27B-shaped checkpoint")
    options.add_argument("--engine", nargs="+", help="only one engine, in this process: disk, float32 or parts")
    chosen = options.parse_args(arguments)
    if chosen.engine:
        print(json.dumps(_engine(*chosen.engine)))
        return
    peer = ROOT / ".venv-vllm" / "bin" / "python"
    if not peer.exists():
        raise SystemExit("The peer, transformers, could not be installed: .venv-vllm is absent. Run: make vllm")
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-convert-") as folder:
        root = Path(folder)
        small = {"embed_dim": chosen.embed_dim, "num_layers": chosen.layers, "mlp_dim": 4 * chosen.embed_dim}
        small |= {"num_heads": 8, "num_kv_heads": 4, "head_dim": 128, "vocab_size": 65_536, "max_seq_len": 512}
        megabytes = synthetic(root / "source", "gemma2/2b", small, dense=True) / 1e6
        theirs = [peer, ROOT / "bench" / "peers" / "transformers_convert.py", root / "source", root / "theirs"]
        runs = alternate(
            {
                "ours": lambda: run_json([*ENGINE, "disk", root / "source", root / "ours"]),
                "through float32": lambda: run_json([*ENGINE, "float32", root / "source", root / "through"]),
                "transformers": lambda: run_json(theirs),
            },
            chosen.rounds,
        )
        same = {name: digests(root / name) == digests(root / "source") for name in ("ours", "through")}
        if not all(same.values()):
            raise SystemExit(f"What was written is not what was read ({same}): the conversion is wrong.")
        more = {} if chosen.skip_27b else {"gemma2_27b": large(root / "27b")}
    rate = {name: [megabytes / run["seconds"] for run in each] for name, each in runs.items()}
    publish(
        "convert",
        "MB per second, disk to disk",
        rate["ours"],
        {"transformers": rate["transformers"]},
        megabytes=round(megabytes),
        through_float32=round(sorted(rate["through float32"])[chosen.rounds // 2], 1),
        peak_rss_gib={name: max(run["peak_rss_gib"] for run in each) for name, each in runs.items()},
        rounds=chosen.rounds,
        **more,
    )


def large(folder: Path) -> dict[str, Any]:
    """Seconds and peak memory of the two ways on Gemma-2 27B's shape; refuses other bytes than the source's."""
    size = synthetic(folder / "source", "gemma2/27b", {}, dense=False)
    want = digests(folder / "source")
    with _Emptied(folder / "target") as emptied:
        disk = run_json([*ENGINE, "disk", folder / "source", folder / "target"])
    if emptied.digests != want:
        raise SystemExit("The shards of the 27B checkpoint are not those of its source: the conversion is wrong.")
    parts = run_json([*ENGINE, "parts", folder / "source", "256", "4"])
    return {"gigabytes": round(size / 1e9, 1), "shards": len(want), "disk_to_disk": disk, "parts_of_4_of_256": parts}


def _engine(kind: str, source: str, *arguments: str) -> dict[str, Any]:
    if kind == "parts":
        os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={arguments[0]}"
    import jax

    from model.config import MeshConfig
    from model.convert import StoredWeights, config_from_hf, convert_hf, load_hf, save_hf
    from model.loop import param_sharding
    from model.sharding import make_mesh

    facts: dict[str, Any] = {}
    start = time.perf_counter()
    if kind == "disk":
        convert_hf(source, *arguments)
    elif kind == "float32":
        save_hf(load_hf(source), *arguments)
    else:
        devices, own = map(int, arguments)
        cfg = config_from_hf(source)
        stored = StoredWeights.of_directory(source, cfg)
        mesh = make_mesh(MeshConfig(fsdp=devices))
        parts: list[np.ndarray] = []
        for path, where in jax.tree_util.tree_leaves_with_path(param_sharding(cfg, mesh)):
            name = "/".join(str(part.key) for part in path)
            indices = where.devices_indices_map(stored.shapes[name])
            parts += [stored.read(name, indices[device]) for device in list(mesh.devices.flat)[:own]]
        stored.check_finite()
        facts = {"held_gib": round(sum(part.nbytes for part in parts) / 2**30, 3)}
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": round(seconds, 2), "peak_rss_gib": round(peak, 3)} | facts


def synthetic(folder: Path, name: str, changes: dict[str, Any], *, dense: bool) -> int:
    """A bfloat16 checkpoint of this shape, shards and index as save_hf would make them; returns its bytes of weights.

    Only the first page of each tensor has numbers unless it is dense; the rest are holes, which read as zeros.
    """
    from model.convert import MAX_SHARD_BYTES, tensor_shapes
    from model.families import FAMILIES, decoder_config

    cfg = decoder_config(name, **changes)
    folder.mkdir(parents=True)
    config = FAMILIES[cfg.family].to_hf_config(cfg, "bfloat16")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    size = total = 0
    for tensor, shape in tensor_shapes(cfg).items():
        tensor_bytes = 2 * int(np.prod(shape))
        if shards[-1] and size + tensor_bytes > MAX_SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][tensor] = shape
        size, total = size + tensor_bytes, total + tensor_bytes
    for index, shard in enumerate(shards):
        file = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        _sparse(folder / (file if len(shards) > 1 else "model.safetensors"), shard, index, dense)
    return total


def _sparse(path: Path, shapes: dict[str, tuple[int, ...]], seed: int, dense: bool) -> None:
    """Written apart from the product's writer: the header, then pages of random numbers between holes."""
    rng = np.random.default_rng(seed)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in sorted(shapes):
        end = at + 2 * int(np.prod(shapes[name]))
        header[name] = {"dtype": "BF16", "shape": list(shapes[name]), "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in sorted(shapes):
            start, end = header[name]["data_offsets"]
            file.seek(8 + len(text) + start)
            count = (end - start) // 2 if dense else min((end - start) // 2, PAGE // 2)
            # Upper halves of float32 are bfloat16, rounded towards zero.
            numbers = rng.standard_normal(count, np.float32)
            file.write((numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes())
        file.truncate(8 + len(text) + at)


def digests(folder: Path) -> list[str]:
    return [_digest(path) for path in sorted(folder.rglob("*.safetensors"))]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Emptied:
    """Hashes and empties each shard below a folder once the next one is there, and the last at the end."""

    def __init__(self, folder: Path):
        self.folder, self.digests = folder, list[str]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "_Emptied":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._take(self._shards())
        shutil.rmtree(self.folder)

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._take(self._shards()[:-1])

    def _take(self, whole: list[Path]) -> None:
        for path in whole[len(self.digests) :]:
            self.digests.append(_digest(path))
            path.write_bytes(b"")

    def _shards(self) -> list[Path]:
        return sorted(self.folder.rglob("*.safetensors"))


if __name__ == "__main__":
    main()
