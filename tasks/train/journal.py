"""What a run writes down as it goes: a line of metrics a step, and the steps whose checkpoint is known to be whole."""

import json
import os
from pathlib import Path
from typing import Any

from tasks.errors import DataFault

TIMING = ("seconds", "tokens_per_s", "wait_s", "mfu")  # fields that differ between two runs of the same steps


class Journal:
    """`metrics.jsonl`, `saves.jsonl` and, once steps were lost, `rollbacks.jsonl` of a run."""

    def __init__(self, metrics: Path, saves: Path, *, writes: bool = True):
        """Of several trainers of a run only the first writes."""
        self._metrics, self._saves, self._rollbacks = metrics, saves, saves.with_name("rollbacks.jsonl")
        self._writes = writes
        self._file: Any = None

    def begin(self, step: int) -> list[dict[str, Any]]:
        """Go on after `step`: lines of later steps, written by a run that was lost, are taken away. Returns the others.

        One that does not write knows of none.

        Raises:
            DataFault: a line up to `step` is missing.
        """
        if not self._writes:
            return []
        kept = self._up_to(step)
        if not _are_all(kept, step):
            raise DataFault(
                f"{self._metrics} has {len(kept)} of the {step} lines up to step {step}: the history of a run is part "
                "of its result. The file was changed or its disk lost data; remove the run directory and train "
                "again."
            )
        write_whole(self._metrics, "".join(_text(line) for line in kept))
        self._file = self._metrics.open("a")
        return kept

    def step(self, line: dict[str, Any]) -> None:
        """Write the line of a finished step."""
        if self._file is not None:
            self._file.write(_text(line))
            self._file.flush()

    def before_save(self) -> None:
        """Bring the lines to the disk: a checkpoint must not be newer than its history."""
        if self._file is not None:
            os.fsync(self._file.fileno())

    def history(self, step: int) -> str:
        """The text of the lines up to a step."""
        return "".join(_text(line) for line in self._up_to(step))

    def recover(self, history: str, step: int) -> None:
        """Take the history that came with a checkpoint where our own has not all lines up to its step."""
        if not _are_all(self._up_to(step), step):
            write_whole(self._metrics, history)

    def saved(self, step: int) -> None:
        """Write down that the checkpoint of a step is whole."""
        if step not in (steps := self._save_steps()):
            self._write_saves([*steps, step])

    def newest_save(self) -> int:
        """The highest step whose checkpoint was whole, 0 without one."""
        return max(self._save_steps(), default=0)

    def forget_saves(self, after: int) -> None:
        """Take back the saves after a step: a rollback was allowed."""
        self._write_saves([step for step in self._save_steps() if step <= after])

    def rolled_back(self, step: int, newest: int, reason: str) -> None:
        """Write down that the run went back from `newest` to `step`."""
        line = {"step": step, "newest": newest, "lost": newest - step, "reason": reason}
        write_whole(self._rollbacks, "".join(_text(line) for line in [*lines(self._rollbacks), line]))

    def lost_steps(self) -> int:
        """Steps that were done again because their checkpoints were lost, over the whole run."""
        return sum(line["lost"] for line in lines(self._rollbacks))

    def _up_to(self, step: int) -> list[dict[str, Any]]:
        return [line for line in lines(self._metrics) if line["step"] <= step]

    def _save_steps(self) -> list[int]:
        return [line["step"] for line in lines(self._saves)]

    def _write_saves(self, steps: list[int]) -> None:
        if self._writes:
            write_whole(self._saves, "".join(json.dumps({"step": step}) + "\n" for step in steps))

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def lasting(path: Path) -> str:
    """The lines of a metrics.jsonl without the fields that differ between two runs of the same steps."""
    return "".join(_text(line) for line in lasting_lines(path))


def lasting_lines(path: Path) -> list[dict[str, Any]]:
    """The same as objects."""
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines(path)]


def timings(path: Path) -> dict[str, float]:
    """How long the steps of a metrics.jsonl took, in seconds and tokens a second."""
    found = lines(path)
    seconds = sorted(line["seconds"] for line in found)
    if not seconds:
        return {}
    rates = sorted(line["tokens_per_s"] for line in found)
    middle = len(seconds) // 2
    waits = sum(line["wait_s"] for line in found)
    return {
        "steps": len(found),
        "step_seconds": seconds[middle],
        "tokens_per_s": rates[middle],
        "train_seconds": round(sum(seconds), 3),
        "data_wait_fraction": round(waits / max(sum(seconds), 1e-9), 5),
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file; the rest of a line that a kill cut off is not one."""
    if not path.exists():
        return []
    found: list[dict[str, Any]] = []
    for text in path.read_text(errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            break
        if not isinstance(line, dict) or "step" not in line:
            break
        found.append(line)
    return found


def _are_all(found: list[dict[str, Any]], step: int) -> bool:
    return [line["step"] for line in found] == list(range(1, step + 1))


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line, separators=(",", ":")) + "\n"


def write_whole(path: Path, text: str) -> None:
    """Write a file so that a kill leaves the old or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
