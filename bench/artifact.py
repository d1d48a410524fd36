"""Artifacts: what produce() costs a unit of work, and how fast a finished artifact is verified again.

    python -m bench.artifact [--units 48] [--unit-mb 4] [--small-units 300] [--rounds 5]

Verifying (the headline): MB a second of a hit, with every file's sha256 compared, against `sha256sum -c` and (where it
is installed) `openssl dgst -sha256`, which uses the CPU's SHA instructions, on the same files. Writing: MB a second of
a stage that only copies a file into each unit, against `cp`, `sync` of each file and `sha256sum`, which together give
the same bytes on the disk and their digests. Overhead: milliseconds that a unit of 4 kB takes beyond those same three
done by hand in Python. Page cache is warm for all; engines alternate.
"""

import contextlib
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.harness import CACHE, alternate, parser, publish
from tasks.artifact import Artifact, Stage, Workspace, open_artifact, produce
from tasks.config import StageConfig

SMALL_BYTES = 4096


class CopyConfig(StageConfig):
    """What to copy: a new seed is a new artifact."""

    seed: int


def main(arguments: list[str] | None = None) -> None:
    options = parser(__doc__)
    options.add_argument("--units", type=int, default=48, help="units of the big artifact")
    options.add_argument("--unit-mb", type=int, default=4, help="megabytes of each")
    options.add_argument("--small-units", type=int, default=300, help="units of the artifact that shows the overhead")
    chosen = options.parse_args(arguments)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="bench-artifact-") as folder:
        root = Path(folder)
        big = _sources(root / "big", chosen.units, chosen.unit_mb * 10**6)
        small = _sources(root / "small", chosen.small_units, SMALL_BYTES)
        megabytes = chosen.units * chosen.unit_mb
        made = _copied(root / "store", big, seed=0)
        sums = _checksums(made)
        engines: dict[str, Callable[[], float]] = {
            "verify": lambda: _timed(lambda: open_artifact(made.url, deep=True)),
            "sha256sum -c": lambda: _timed(lambda: _check(made, sums)),
            **({"openssl dgst": lambda: _timed(lambda: _openssl(made))} if shutil.which("openssl") else {}),
            "write": lambda: _fresh(root / "work", lambda place: _copied(place, big, seed=1)),
            "cp+sync+sha256sum": lambda: _fresh(root / "work", lambda place: _by_hand(place, big)),
            "small": lambda: _fresh(root / "work", lambda place: _copied(place, small, seed=2)),
            "small by hand": lambda: _fresh(root / "work", lambda place: _small_by_hand(place, small)),
        }
        seconds = alternate(engines, chosen.rounds)
    rates = {name: [megabytes / s for s in values] for name, values in seconds.items() if "small" not in name}
    written, by_hand = statistics.median(rates["write"]), statistics.median(rates["cp+sync+sha256sum"])
    overhead = [(a - b) / len(small) * 1e3 for a, b in zip(seconds["small"], seconds["small by hand"], strict=True)]
    publish(
        "artifact",
        "MB verified per second",
        rates["verify"],
        {name: rates[name] for name in ("sha256sum -c", "openssl dgst") if name in rates},
        megabytes=megabytes,
        write_mb_s={
            "ours": round(written, 1),
            "cp+sync+sha256sum": round(by_hand, 1),
            "ratio": round(written / by_hand, 3),
        },
        overhead_ms_per_unit=round(statistics.median(overhead), 3),
        ms_per_small_unit=round(statistics.median(seconds["small"]) / len(small) * 1e3, 3),
        rounds=chosen.rounds,
        disk=_disk(CACHE),
    )


def _sources(folder: Path, count: int, size: int) -> list[Path]:
    folder.mkdir(parents=True)
    made = [folder / f"{index:05d}.bin" for index in range(count)]
    for index, path in enumerate(made):
        path.write_bytes(random.Random(index).randbytes(size))
    return made


def _copied(store: Path, sources: list[Path], seed: int) -> Artifact:
    def run(workspace: Workspace, config: CopyConfig, inputs: dict[str, Artifact]) -> None:
        for source in sources:
            with workspace.unit(source.stem) as unit:
                unit.add_file(source.name, source, rows=1)
                unit.count(1, 1)

    stage = Stage(name="copy", version="1", run=run, code=("tasks.records",))
    return produce(str(store), stage, "bench", CopyConfig(seed=seed), {})


def _by_hand(place: Path, sources: list[Path]) -> None:
    place.mkdir(parents=True)
    copies = [str(place / source.name) for source in sources]
    subprocess.run(["cp", "--reflink=never", *map(str, sources), str(place)], check=True)
    subprocess.run(["sync", *copies], check=True)
    subprocess.run(["sha256sum", *copies], check=True, stdout=subprocess.DEVNULL)


def _small_by_hand(place: Path, sources: list[Path]) -> None:
    """Copy, sync, digest, no processes started: what is left of a unit is bookkeeping."""
    place.mkdir(parents=True)
    for source in sources:
        data = source.read_bytes()
        hashlib.sha256(data).hexdigest()
        with open(place / source.name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _checksums(made: Artifact) -> Path:
    listed = Path(made.url).with_suffix(".sha256")
    listed.write_text("".join(f"{e.sha256}  {Path(made.url) / 'data' / e.path}\n" for e in made.manifest.files))
    return listed


def _check(made: Artifact, sums: Path) -> None:
    subprocess.run(["sha256sum", "-c", "--quiet", str(sums)], check=True)


def _openssl(made: Artifact) -> None:
    paths = [f"{made.url}/data/{entry.path}" for entry in made.manifest.files]
    subprocess.run(["openssl", "dgst", "-sha256", *paths], check=True, stdout=subprocess.DEVNULL)


def _fresh(place: Path, work: Callable[[Path], object]) -> float:
    with _removed(place):
        return _timed(lambda: work(place))


@contextlib.contextmanager
def _removed(place: Path) -> Iterator[None]:
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _disk(path: Path) -> str:
    done = subprocess.run(["df", "--output=fstype", str(path)], capture_output=True, text=True)
    return done.stdout.split()[-1] if done.returncode == 0 else "unknown"


if __name__ == "__main__":
    main()
