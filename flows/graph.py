"""Presets to steps, steps to artifacts: what `python -m flows`, the Prefect flows and `plan` share.

A step is one artifact to make: a stage, a name, a config, and the steps (or finished artifacts) it reads. The graph
is plain data, so it can be explained before anything runs.
"""

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from tasks.artifact import Artifact, Stage, open_artifact, produce
from tasks.artifact.catalog import Verdict, explain
from tasks.artifact.identity import code_digest
from tasks.config import StageConfig

log = logging.getLogger(__name__)

Outputs = Mapping[str, "Step"]
NOTHING: Outputs = {}
DEFAULT = "main"  # the output meant by FLOW/PRESET without `:OUTPUT`


class StageTask(Protocol):
    """The Prefect task of a stage (tasks/<stage>/task.py)."""

    def __call__(self, store: str, name: str, config: Any, inputs: dict[str, Artifact]) -> Artifact: ...


@dataclass(frozen=True, eq=False)
class Step:
    """One artifact to make. Two flows that refer to the same preset share the same step object."""

    name: str
    stage: Stage
    task: StageTask
    config: StageConfig
    parents: Mapping[str, "Step | str"] = field(default_factory=dict)  # role -> step, or the URL of an artifact

    @property
    def label(self) -> str:
        return f"{self.stage.name}/{self.name}"


Build = Callable[["Resolver", str, Any], Outputs]


@dataclass(frozen=True)
class FlowSpec:
    """What a flow is, as data: its presets and the function that turns one into steps."""

    name: str
    presets: Mapping[Any, StageConfig]  # by a StrEnum, whose members are texts
    build: Build  # (resolver, preset name, config) -> outputs by name; `main` is what FLOW/PRESET means


class Resolver:
    """Turns references (`FLOW/PRESET[:OUTPUT]`) into steps, each preset once, with the user's changes applied."""

    def __init__(self, flows: Mapping[str, FlowSpec], changes: Mapping[tuple[str, str], Mapping[str, Any]]):
        self._flows = flows
        self._changes = changes
        self._made: dict[tuple[str, str], Outputs] = {}

    def outputs(self, flow: str, preset: str) -> Outputs:
        """All outputs of a preset.

        Raises:
            ValueError: unknown flow or preset, an unknown key or a wrong value in the changes.
        """
        key = (flow, preset)
        if key not in self._made:
            config = self.config(flow, preset)
            self._made[key] = self._flows[flow].build(self, preset, config)
        return self._made[key]

    def config(self, flow: str, preset: str) -> StageConfig:
        """The preset's config with the changes of this run."""
        if flow not in self._flows:
            raise ValueError(
                f"flow={flow!r} is not one of the flows: {', '.join(sorted(self._flows))}. "
                "A reference is FLOW/PRESET or FLOW/PRESET:OUTPUT. Correct the name."
            )
        presets = self._flows[flow].presets
        if preset not in presets:
            raise ValueError(
                f"preset={preset!r} is not one of the presets of {flow}: {', '.join(presets)}. "
                "A run is a row of flows/presets.py. Use one of these, or add a row."
            )
        return presets[preset].with_changes(self._changes.get((flow, preset), {}))

    def step(self, reference: str, siblings: Outputs = NOTHING) -> "Step | str":
        """The step behind a reference; a URL (or a path) of a finished artifact is returned as it is.

        Args:
            siblings: what the flow has made so far; `:OUTPUT` names one of these.
        """
        if "://" in reference or reference.startswith(("/", ".")):
            return reference
        flow, _, rest = reference.partition("/")
        preset, _, output = rest.partition(":")
        outputs = self.outputs(flow, preset) if not reference.startswith(":") else siblings
        output = reference[1:] if reference.startswith(":") else output
        if (output or DEFAULT) not in outputs:
            raise ValueError(
                f"reference {reference!r}: there is no output {output or DEFAULT!r}, only {', '.join(outputs)}. "
                "Name one of these after the colon."
            )
        return outputs[output or DEFAULT]

    def parents(self, config: StageConfig, siblings: Outputs = NOTHING) -> dict[str, "Step | str"]:
        """The resolved inputs of a config: role -> step; a tuple of references becomes role.0, role.1, …"""
        found: dict[str, Step | str] = {}
        for role, reference in config.inputs().items():
            if isinstance(reference, str):
                found[role] = self.step(reference, siblings)
            else:
                found |= {f"{role}.{i}": self.step(item, siblings) for i, item in enumerate(reference)}
        return found


def walk(steps: Outputs) -> list[Step]:
    """Every step reachable from the outputs, parents before children, each once.

    Steps that read the same teacher follow each other where they can, so that its server starts once.
    """
    waiting = list(_depth_first(steps))
    done: set[int] = set()
    order: list[Step] = []
    while waiting:
        ready = (step for step in waiting if all(id(parent) in done for parent in _parent_steps(step)))
        first = next(ready)
        teacher = order[-1].parents.get("teacher") if order else None
        alike = (step for step in ready if step.parents.get("teacher") is teacher)
        if teacher is not None and first.parents.get("teacher") is not teacher:
            first = next(alike, first)
        waiting.remove(first)
        done.add(id(first))
        order.append(first)
    return order


def _depth_first(steps: Outputs) -> Iterator[Step]:
    seen: set[int] = set()

    def visit(step: Step) -> Iterator[Step]:
        if id(step) not in seen:
            seen.add(id(step))
            for parent in _parent_steps(step):
                yield from visit(parent)
            yield step

    for step in steps.values():
        yield from visit(step)


def _parent_steps(step: Step) -> list[Step]:
    return [parent for parent in step.parents.values() if isinstance(parent, Step)]


def check_machine(steps: Outputs) -> None:
    """Stop before the first byte when a step needs hardware that is not here.

    Raises:
        ConfigError: with what is needed and which preset runs on this machine.
    """
    for step in walk(steps):
        check = getattr(step.config, "check_machine", None)
        if check is not None:
            check()


def run(steps: Outputs, store: str, *, prefect: bool, rerun: frozenset[str] = frozenset()) -> dict[str, Artifact]:
    """Make every artifact the outputs need, in order, and return the outputs' artifacts.

    Args:
        prefect: call the Prefect tasks (inside a flow run) instead of the plain functions.
        rerun: labels (`stage/name`) or stage names to make again although they are finished.
    """
    check_machine(steps)
    made: dict[int, Artifact] = {}
    stale: list[str] = []
    order = walk(steps)
    for number, step in enumerate(order, 1):
        log.info("step %d of %d: %s", number, len(order), step.label)
        inputs = {
            role: made[id(parent)] if isinstance(parent, Step) else open_artifact(parent)
            for role, parent in step.parents.items()
        }
        again = bool({step.label, step.stage.name} & rerun)
        config = _told(step, stale)
        if prefect and not again:
            made[id(step)] = step.task(store, step.name, config, inputs)
        else:
            made[id(step)] = produce(store, step.stage, step.name, config, inputs, rerun=again)
        stale += _stale(step, made[id(step)])
    return {name: made[id(step)] for name, step in steps.items()}


def _stale(step: Step, artifact: Artifact) -> list[str]:
    """A line for the report when an expensive stage is a hit although its code changed (design 2)."""
    if artifact.manifest.code_digest == code_digest(step.stage.code):
        return []
    return [
        f"{step.label} was made by other code of the same version and is used as it is; --rerun {step.label} redoes it"
    ]


def _told(step: Step, stale: list[str]) -> StageConfig:
    """The step's config; a report's carries the warnings of the steps before it."""
    return (
        step.config.with_changes({"warnings": tuple(stale)}) if stale and step.stage.name == "report" else step.config
    )


@dataclass(frozen=True)
class Planned:
    """What `plan` says of one step; `verdict` is None while a parent has still to be made."""

    step: Step
    verdict: Verdict | None
    waits_for: tuple[str, ...] = ()


def plan(steps: Outputs, store: str) -> list[Planned]:
    """What would happen to each step, and why, without making anything."""
    found: dict[int, Artifact | None] = {}
    planned: list[Planned] = []
    stale: list[str] = []
    for step in walk(steps):
        inputs: dict[str, Artifact] = {}
        waits: list[str] = []
        for role, parent in step.parents.items():
            artifact = found[id(parent)] if isinstance(parent, Step) else open_artifact(parent)
            if artifact is None:
                waits.append(parent.label if isinstance(parent, Step) else parent)
            else:
                inputs[role] = artifact
        verdict = None if waits else explain(store, step.stage, step.name, _told(step, stale), inputs)
        artifact = verdict.artifact if verdict and verdict.state == "hit" else None
        found[id(step)] = artifact
        stale += _stale(step, artifact) if artifact else []
        planned.append(Planned(step, verdict, tuple(waits)))
    return planned


def default_store() -> str:
    """Where artifacts live: $NESTLING_STORE, else `.nestling/store` under the current directory."""
    return os.environ.get("NESTLING_STORE") or str(Path.cwd() / ".nestling" / "store")
