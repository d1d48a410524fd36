"""`python -m tasks.train.replay DUMP`: compute the step that stopped a run again, from the checkpoint before it.

Every step from there on is computed as the run did and compared with what it wrote; the last one with the dump, its
batch included. Exit code 0 says that all of them are the same to the last digit. Nothing of the run is changed.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import NestlingError
from tasks.train.dump import RUN, read_dump, same
from tasks.train.journal import lasting_lines
from tasks.train.run import read_run
from tasks.train.trainer import redo

SUMS = ("step", "tokens", "learned")  # fields of a line that count from the beginning of the run


def main() -> int:
    """Replay, and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.train.replay",
        description="Compute the step that stopped a run again. Example: python -m tasks.train.replay RUN_DIR/dump",
    )
    parser.add_argument("dump", type=Path, help="the dump/ of the run directory")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr)
    try:
        differences = 0
        for text, is_same in replay(parser.parse_args().dump):
            print(text, flush=True)
            differences += not is_same
    except NestlingError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 1 if differences else 0


def replay(dump: Path) -> Iterator[tuple[str, bool]]:
    """A line of text for each step computed again, and whether it is as it was."""
    wanted, batch = read_dump(dump)
    spec = read_run(dump / RUN)
    written: dict[int, dict[str, Any]] = {line["step"]: line for line in lasting_lines(spec.metrics)}
    for step, row, numbers in redo(spec, wanted.checkpoint, wanted.step):
        if step == wanted.step:
            is_batch = row.keys() == batch.keys() and all(np.array_equal(row[name], batch[name]) for name in row)
            is_same = is_batch and same(numbers, wanted.numbers)
            expected = f"{'' if is_batch else 'another batch; '}the dump says {json.dumps(wanted.numbers)}"
        else:
            there = {name: value for name, value in written.get(step, {}).items() if name not in SUMS}
            is_same = same({n: v for n, v in numbers.items() if n not in SUMS}, there)
            expected = f"metrics.jsonl says {json.dumps(there)}"
        yield f"step {step}: {json.dumps(numbers)}: {'the same' if is_same else expected}", is_same


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of libraries may still wait for something
