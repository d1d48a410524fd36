"""Finds libtpu, compiles programs in processes of their own, and keeps what came out by the program's digest."""

import gzip
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifact.finished import cache_root
from tasks.errors import ConfigError, NestlingError

ROOT = Path(__file__).resolve().parents[2]
LOG_LINES = 15


class CompilerFault(NestlingError):  # noqa: N818 - as its siblings in tasks.errors
    """The compiler stopped on something other than memory."""


@dataclass(frozen=True)
class Compiled:
    """One compiled program, or the compiler's refusal for want of memory."""

    digest: str
    facts: dict[str, Any]
    hlo_path: Path

    @property
    def fits(self) -> bool:
        return self.facts["memory"] is not None

    def hlo(self) -> str:
        """The optimized, scheduled HLO text."""
        return gzip.decompress(self.hlo_path.read_bytes()).decode()


def find_libtpu() -> Path:
    """Google's TPU compiler: $TPU_LIBRARY_PATH, this environment's (the [tpu] extra), or that of `make tpu`.

    Raises:
        ConfigError: it is nowhere.
    """
    here = importlib.util.find_spec("libtpu")
    places = [
        os.environ.get("TPU_LIBRARY_PATH", ""),
        *(f"{place}/libtpu.so" for place in (here.submodule_search_locations or [] if here else [])),
        *map(str, sorted(ROOT.glob(".venv-tpu/lib/python*/site-packages/libtpu/libtpu.so"))),
    ]
    for place in places:
        if place and Path(place).is_file():
            return Path(place)
    raise ConfigError(
        f"no libtpu in {sys.prefix}, {ROOT / '.venv-tpu'} or TPU_LIBRARY_PATH: a preflight compiles with the real TPU "
        "compiler, which is that library (it needs no TPU). Install it with: make tpu   (or pip install -e '.[tpu]')"
    )


def libtpu_version(library: Path) -> str:
    """From its package's metadata; a library without one is known by its size."""
    found = sorted(library.parent.parent.glob("libtpu-*.dist-info"))
    return found[0].name.removeprefix("libtpu-").removesuffix(".dist-info") if found else f"{library.stat().st_size} B"


def compiler_here() -> str:
    """The compiler of this machine in words; blank where there is none."""
    try:
        library = find_libtpu()
    except ConfigError:
        return ""
    return f"jax {importlib.metadata.version('jax')}, libtpu {libtpu_version(library)}"


def compile_step(spec: dict[str, Any], *, cache: Path | None = None) -> Compiled:
    """Compile (or find) the step that a spec describes, in a child process.

    The spec is what `tasks.preflight.program.compile_program` reads, without `libtpu`.

    Raises:
        ConfigError: libtpu is not here, or the model and the mesh do not belong together.
        CompilerFault: the compiler failed otherwise.
    """
    library = find_libtpu()
    cache = cache or cache_root() / "preflight"
    with tempfile.TemporaryDirectory(prefix="nestling-preflight-") as folder:
        paths = [Path(folder) / name for name in ("spec.json", "result.json")]
        paths[0].write_text(json.dumps(spec | {"libtpu": libtpu_version(library)}))
        done = subprocess.run(
            [sys.executable, "-m", "tasks.preflight", *map(str, paths), str(cache)],
            env=_environment(library, spec["topology"]),
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise _fault(done.stderr, done.returncode)
        facts = json.loads(paths[1].read_text())
    return Compiled(facts["digest"], facts, cache / facts["digest"][:24] / "hlo.txt.gz")


def _environment(library: Path, topology: str) -> dict[str, str]:
    """JAX stays on the CPU; the compiler is told not to look for the chips that it compiles for."""
    kept = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")}
    return kept | {
        "JAX_PLATFORMS": "cpu",
        "TPU_LIBRARY_PATH": str(library),
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # two compiles at once are no fight over a chip
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v6e-8",  # the next three silence questions about the machine
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "PYTHONPATH": str(ROOT),
    }


def _fault(log: str, code: int) -> NestlingError:
    lines = [line for line in log.strip().splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit code {code}"
    if last.startswith("ValueError: "):  # what model/ refuses: head counts, meshes, lengths
        return ConfigError(last.removeprefix("ValueError: "))
    return CompilerFault(
        f"the TPU compiler's process ended with exit code {code}: {last[:600]}\nNothing can be said about a program "
        "that does not compile. Its last lines:\n  " + "\n  ".join(line[:200] for line in lines[-LOG_LINES:-1])
    )
