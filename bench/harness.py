"""What the benchmarks share: throw-away environments of the peers, alternating rounds, one JSON line last."""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"


def peer_python(*packages: str, python: str = sys.executable) -> Path:
    """The interpreter of an environment that holds exactly these pinned packages, made with uv at first use.

    Args:
        python: the interpreter, or a version such as 3.12 for a peer that wants another than ours.

    Raises:
        SystemExit: the packages cannot be installed (no network, no uv).
    """
    home = _peer_home(*packages)
    interpreter = home / "bin" / "python"
    if (home / ".done").exists():
        return interpreter
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is None:
        raise SystemExit(
            "The peers of a benchmark live in environments made by uv, and uv is not here. Run: make install"
        )
    shutil.rmtree(home, ignore_errors=True)
    install = [uv, "pip", "install", "-q", "--python", str(interpreter), *packages]
    for choices in (
        [[uv, "venv", "-q", "--python", python, str(home)]],
        # CPU builds of torch are not on the usual index: a wheel kept here, else the index that uv knows for them.
        [install, [*install, "--torch-backend", "cpu"]],
    ):
        for command in choices:
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ | _kept_here())
            if not done.returncode:
                break
        else:
            raise SystemExit(
                f"{' '.join(packages)} could not be installed: {done.stderr.strip()[-600:]}\nA benchmark compares with "
                "the peer's own package. Check the network or the package index, and run it again."
            )
    (home / ".done").touch()
    return interpreter


def peer_if_here(*packages: str, python: str = sys.executable, install: bool = False) -> Path | None:
    """As `peer_python`, but None instead of an installation unless it is asked for."""
    if install:
        return peer_python(*packages, python=python)
    home = _peer_home(*packages)
    return home / "bin" / "python" if (home / ".done").exists() else None


def _peer_home(*packages: str) -> Path:
    # No brackets in the path: packages that look for their own files with `glob` (xprof) would not find them.
    names = (package.replace("==", "-").replace("[", "-").replace("]", "") for package in packages)
    return CACHE / "bench-venvs" / "+".join(names)


def _kept_here() -> dict[str, str]:
    """Wheels and interpreters of this machine that uv does not look for: pip's folder of wheels, pyenv's versions."""
    interpreters = map(str, sorted((Path.home() / ".pyenv" / "versions").glob("*/bin")))
    wheels = {"UV_FIND_LINKS": folder} if (folder := os.environ.get("PIP_FIND_LINKS")) else {}
    return {"PATH": os.pathsep.join((*interpreters, os.environ.get("PATH", "")))} | wheels


def run_json(command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run one engine of a benchmark by itself and read the JSON of its last line."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=ROOT, env=env)
    if done.returncode:
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def alternate(engines: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[Any]]:
    """Call the engines in turn, `rounds` times each, so that what slows the machine slows all alike."""
    results: dict[str, list[Any]] = {name: [] for name in engines}
    for index in range(rounds):
        for name, engine in engines.items():
            results[name].append(engine())
        say(f"round {index + 1} of {rounds}")
    return results


def say(text: str) -> None:
    """A line for whoever watches; stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def compared(ours: Sequence[float], peers: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Medians, their spread, and ours over the best peer."""
    best = max(statistics.median(values) for values in peers.values())
    return {
        "ours": _rounded(statistics.median(ours)),
        "peers": {name: _rounded(statistics.median(values)) for name, values in peers.items()},
        "ratio": _rounded(statistics.median(ours) / best),
        "ours_range": [_rounded(min(ours)), _rounded(max(ours))],
        "peers_range": {name: [_rounded(min(values)), _rounded(max(values))] for name, values in peers.items()},
    }


def publish(bench: str, unit: str, ours: Sequence[float], peers: Mapping[str, Sequence[float]], **facts: Any) -> None:
    """Print the result as one JSON line."""
    line = {
        "bench": bench,
        "unit": unit,
        **compared(ours, peers),
        **facts,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs, {_cpu_name()}",
        "python": platform.python_version(),
    }
    print(json.dumps(line, ensure_ascii=False), flush=True)


def parser(doc: str | None, **defaults: Any) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(description=(doc or "").strip().splitlines()[0])
    made.add_argument("--rounds", type=int, default=defaults.get("rounds", 5), help="times each engine is run")
    return made


def _cpu_name() -> str:
    try:
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        return platform.processor()
    return names[0].partition(":")[2].strip() if names else platform.processor()


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
