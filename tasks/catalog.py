"""What is in a store: why a step would run, where an artifact comes from, what nobody needs any more."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tasks.artifact import Artifact, Stage, code_changed, identify, unusable
from tasks.config import StageConfig
from tasks.ledger import read_ledger
from tasks.manifest import inspect

State = Literal["hit", "resume", "run", "repair"]


@dataclass(frozen=True)
class Verdict:
    """What `produce` would do with a step, and why."""

    state: State
    artifact: Artifact | None = None
    done_units: int = 0
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    cost: float | None = None
    tokens: int | None = None


def explain(store: str, stage: Stage, name: str, config: StageConfig, inputs: Mapping[str, Artifact]) -> Verdict:
    """What `produce` would do, and why, without doing it."""
    identity = identify(store, stage, name, config, inputs)
    finding = inspect(identity.url)
    problems = unusable(stage, identity, finding)
    if finding.manifest is not None and not problems:
        warnings = () if finding.manifest.code_digest == identity.code_digest else (code_changed(finding.manifest),)
        return Verdict("hit", Artifact(identity.url, finding.manifest), warnings=warnings)
    done = len(read_ledger(identity.url))
    if problems:
        return Verdict("repair" if done else "run", done_units=done, reasons=tuple(problems))
    return Verdict("resume" if done else "run", done_units=done)


def render_verdict(verdict: Verdict) -> str:
    """One line."""
    done = f"{verdict.done_units} units done" if verdict.done_units else ""
    return "; ".join(text for text in (done, *verdict.reasons, *verdict.warnings) if text)
