"""The report in short: Markdown and rows for places that cannot show a page, such as the Prefect UI."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.artifact import Artifact
from tasks.page.words import duration, signed, signed_percent, visible
from tasks.report.config import ReportConfig
from tasks.report.corpus import funnels, language_name
from tasks.report.lineage import Node, trace
from tasks.report.report import model_name
from tasks.report.scores import Contest, Score, contests, headlines
from tasks.report.training import trainings
from tasks.storage import is_local, local_path

REASONS = 3  # of each funnel, in the summary


def summary_markdown(config: ReportConfig, inputs: Mapping[str, Artifact], page_url: str) -> str:
    """The headline, the losses, the funnels and where the page is. Every word from outside is escaped."""
    nodes = trace(inputs)
    made = [node.manifest for node in nodes if node.manifest is not None]
    lines = [f"# {escaped(config.title or model_name(nodes) or 'Factory run')}", ""]
    lines += [f"> {escaped(text)}\n" for text in config.warnings]
    lines += _headline_table(nodes, config)
    lines += _training_table(nodes)
    for funnel in funnels(nodes):
        reasons = ", ".join(f"{escaped(item.reason)} {item.rows:,}" for item in funnel.reasons[:REASONS])
        more = len(funnel.reasons) - REASONS
        tail = f" ({reasons}{f' and {more} more reasons' if more > 0 else ''})" if reasons else ""
        lines.append(f"- **{escaped(funnel.title)}**: {funnel.rows_out:,} of {funnel.rows_in:,} rows kept{tail}")
    lines += [
        "",
        f"All stages took {duration(sum(manifest.seconds for manifest in made))}"
        + (f" and cost {sum(manifest.cost for manifest in made):,.2f}." if any(m.cost for m in made) else "."),
        "",
        f"The whole report: [{escaped(page_url)}](<{link(page_url)}>)",
    ]
    return "\n".join(lines) + "\n"


def score_rows(config: ReportConfig, inputs: Mapping[str, Artifact]) -> list[dict[str, Any]]:
    """One row for each score: a table for the Prefect UI."""
    return [
        {
            "task": contest.task,
            "language": contest.language,
            "metric": contest.metric,
            "model": score.model,
            "value": round(score.value, 4),
            "standard error": None if score.stderr is None else round(score.stderr, 4),
            "change": _change(contest, score),
            "items": score.n,
        }
        for contest in contests(trace(inputs), config.before)
        for score in contest.scores
    ]


def artifact_key(kind: str, name: str) -> str:
    """A key as Prefect wants it: lowercase letters, digits and single dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"{kind}-{name}".lower()).strip("-")


def link(url: str) -> str:
    """A URL for a browser: `file://` for a path."""
    return local_path(url).as_uri() if is_local(url) else url


def escaped(text: str) -> str:
    """Text that Markdown and HTML show as it is, on one line."""
    flat = " ".join(visible(text).split())
    entities = {"<": "&lt;", "&": "&amp;"}
    return "".join(f"\\{char}" if char in "\\`*_[]()#|>!~" else entities.get(char, char) for char in flat)


def _headline_table(nodes: Sequence[Node], config: ReportConfig) -> list[str]:
    found = headlines(contests(nodes, config.before), config.before, config.after)
    if not found:
        return []
    lines = ["| bits per byte | before | after | change |", "| --- | ---: | ---: | ---: |"]
    for line in found:
        lines.append(
            f"| {escaped(language_name(line.language))} | {line.before.value:.3f} ({escaped(line.before.model)}) "
            f"| {line.after.value:.3f} ({escaped(line.after.model)}) | {signed_percent(line.change)} |"
        )
    return [*lines, ""]


def _training_table(nodes: Sequence[Node]) -> list[str]:
    found = [run for run in trainings(nodes) if run.first_loss is not None and run.last_loss is not None]
    if not found:
        return []
    lines = ["| training | steps | tokens | first loss | last loss |", "| --- | ---: | ---: | ---: | ---: |"]
    for run in found:
        losses = f"{run.first_loss:.3f} | {run.last_loss:.3f}"
        lines.append(f"| {escaped(run.node.name)} | {run.steps:,} | {run.tokens:,} | {losses} |")
    return [*lines, ""]


def _change(contest: Contest, score: Score) -> str:
    if score.change is None:
        return "reference"
    text = signed_percent(score.change) if contest.is_relative else signed(score.change)
    return f"{text} (noise)" if score.is_noise else text
