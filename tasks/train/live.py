"""A page and TensorBoard files about a run that is going on, made beside the trainer from what it writes.

The page is one file that loads nothing and renews itself; it is replaced whole, and works from a disk. It costs the
trainer nothing: the launcher's side reads metrics.jsonl and goodput.jsonl a few times a minute.
"""

import contextlib
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup

from tasks.errors import ConfigError
from tasks.page import content_security_policy, environment, style
from tasks.page.charts import downsample, line_chart
from tasks.page.goodput import time_spent
from tasks.train.goodput import account, read_marks
from tasks.train.journal import write_whole
from tasks.train.run import RunSpec

log = logging.getLogger(__name__)

Line = dict[str, Any]
FIELDS = {"step", "loss", "lr", "grad_norm", "tokens", "seconds", "tokens_per_s", "wait_s"}
RECENT = 50  # steps that "now" is the median of
NEWEST = 10  # steps in the table
MEASURES: tuple[tuple[str, str, Callable[[Line], float | None]], ...] = (  # title, unit, value of a line
    ("Loss", "nats per token", lambda line: line.get("loss")),
    ("Learning rate", "per step", lambda line: line.get("lr")),
    ("Gradient norm", "before clipping", lambda line: line.get("grad_norm")),
    ("Speed", "tokens per second", lambda line: line.get("tokens_per_s")),
    ("MFU", "% of peak FLOP/s", lambda line: 100 * line["mfu"] if "mfu" in line else None),
    ("Data wait", "% of step time", lambda line: 100 * line["wait_s"] / max(line["seconds"], 1e-9)),
)


class Tail:
    """The whole lines of a file that grows, and that a resumed trainer may replace by a shorter one."""

    def __init__(self, path: Path):
        self._path = path
        self._offset, self._file = 0, 0
        self.lines: list[Line] = []

    def read(self) -> int:
        """Read on. Returns the number of lines kept from before: all of them, or 0 when the file is another."""
        if not self._path.exists():
            return len(self.lines)
        with self._path.open("rb") as file:
            found = os.fstat(file.fileno())
            if found.st_ino != self._file or found.st_size < self._offset:
                self._offset, self._file, self.lines = 0, found.st_ino, []
            kept = len(self.lines)
            file.seek(self._offset)
            text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        for text in whole.splitlines():
            with contextlib.suppress(ValueError):  # a damaged line is the trainer's to report
                if (line := json.loads(text)).keys() >= FIELDS:
                    self.lines.append(line)
        return kept


class Live:
    """Follows a run; call it often, it does something every `page_every_s`."""

    def __init__(self, spec: RunSpec, label: str, steps: int):
        self._spec, self._label, self._steps = spec, label, steps
        self._tail = Tail(spec.metrics)
        self._shown = -float("inf")
        self._board = _Board(spec.tensorboard) if spec.config.tensorboard else None

    def __call__(self, *, is_over: bool = False) -> None:
        if not is_over and time.monotonic() - self._shown < self._spec.config.page_every_s:
            return
        self._shown = time.monotonic()
        try:
            kept = self._tail.read()
            if self._board is not None:
                self._board.write(self._tail.lines, kept)
            write_whole(self._spec.page, self.page(is_over=is_over))
        except Exception:  # a picture of the work must never stop the work
            log.exception("%s was not renewed", self._spec.page)
        if is_over and self._board is not None:
            self._board.close()

    def page(self, *, is_over: bool) -> str:
        """The HTML."""
        lines = self._tail.lines
        config, sheet = self._spec.config, style()
        facts = account(read_marks(self._spec.goodput)).facts(
            config.mesh.to_model().num_devices, config.usd_per_device_hour, config.watts_per_device
        )
        recent = lines[-RECENT:]
        step_s = statistics.median(line["seconds"] for line in recent) if recent else None
        step = lines[-1]["step"] if lines else 0
        return (
            environment(Path(__file__).parent)
            .get_template("live.html.jinja")
            .render(
                style=sheet,
                policy=content_security_policy(sheet),
                label=self._label,
                refresh_s=None if is_over else max(1, round(config.page_every_s)),
                now=datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC"),
                model=config.model,
                step=step,
                steps=self._steps,
                last=lines[-1] if lines else None,
                speed=statistics.median(line["tokens_per_s"] for line in recent) if recent else None,
                left_s=None if step_s is None else step_s * (self._steps - step),
                skipped=sum("skipped" in line for line in lines),
                error=_error(self._spec.error),
                charts=charts(lines),
                newest=lines[-NEWEST:][::-1],
                has_mfu=any("mfu" in line for line in lines),
                spent=time_spent(facts),
            )
        )


def charts(lines: list[Line]) -> list[tuple[str, Markup]]:
    """A chart for everything that was measured, and one for the loss of each source."""
    sources = dict.fromkeys(name for line in lines for name in line.get("source_loss") or {})
    measures = [
        *MEASURES,
        *((f"Loss of {name}", "nats per token", _of_source(name)) for name in sources if len(sources) > 1),
    ]
    made: list[tuple[str, Markup]] = []
    for title, unit, value in measures:
        points = [(float(line["step"]), y) for line in lines if (y := value(line)) is not None]
        if points:
            steps, values = zip(*points, strict=True)
            chart = line_chart(
                downsample(steps, values), title=f"{title} over steps", x_label="step", y_label=unit, kind="after"
            )
            made.append((title, chart))
    return made


def _of_source(name: str) -> Callable[[Line], float | None]:
    return lambda line: (line.get("source_loss") or {}).get(name)


def _error(path: Path) -> str:
    try:
        return str(json.loads(path.read_text())["message"])
    except (OSError, ValueError, KeyError):
        return ""


class _Board:
    """TensorBoard's event files. Steps that are done again hide those of the first time."""

    def __init__(self, directory: Path):
        try:
            from tensorboardX import SummaryWriter
        except ModuleNotFoundError as error:
            raise ConfigError(
                "tensorboard=True needs the package tensorboardX, which writes its files and is not here. Install it "
                "with: pip install -e '.[tensorboard]', or leave tensorboard off: live.html shows the same curves."
            ) from error
        self._writer_of, self._directory = SummaryWriter, directory
        self._writer: Any = None
        self._step = self._files = 0

    def write(self, lines: list[Line], kept: int) -> None:
        """Write the lines after the first `kept`."""
        new = lines[kept:]
        if new and (self._writer is None or new[0]["step"] <= self._step):
            self.close()
            self._files += 1  # two of one second would have one name
            suffix = f".{self._files}"
            self._writer = self._writer_of(str(self._directory), purge_step=new[0]["step"], filename_suffix=suffix)
        for line in new:
            flat = {f"source_loss/{name}": value for name, value in (line.get("source_loss") or {}).items()}
            for name, value in (line | flat).items():
                if isinstance(value, (int, float)) and name != "step":
                    self._writer.add_scalar(name, value, line["step"])
            self._step = line["step"]

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
