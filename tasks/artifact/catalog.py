"""What is in a store: why a step would run, where an artifact comes from, what nobody needs any more."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from tasks.artifact.expiry import Collection, Removal, gc, render_gc
from tasks.artifact.finished import Artifact
from tasks.artifact.lease import is_held, read_lease
from tasks.artifact.ledger import check_unit, read_ledger, read_run
from tasks.artifact.lineage import Lineage, lineage, render_lineage
from tasks.artifact.manifest import MANIFEST, Finding, Manifest, inspect
from tasks.artifact.stage import Identity, Stage, code_changed, identify, unusable
from tasks.config import StageConfig
from tasks.storage import join, normalise, read_all, storage_for

__all__ = [
    "Collection",
    "Lineage",
    "Removal",
    "Verdict",
    "explain",
    "gc",
    "lineage",
    "render_gc",
    "render_lineage",
    "render_verdict",
]

State = Literal["hit", "resume", "run", "repair"]
MAX_REASONS = 8
SHOWN_CHARS = 60


@dataclass(frozen=True)
class Verdict:
    """What `produce` would do with a step, and why."""

    state: State
    url: str
    artifact: Artifact | None = None  # of a hit
    done_units: int = 0
    total_units: int | None = None  # None when nobody has said
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float | None = None  # what remains, by the nearest finished artifact; None when there is none
    cost: float | None = None
    tokens: int | None = None
    nearest: str | None = None  # URL of the artifact that the reasons compare with


def explain(store: str, stage: Stage, name: str, config: StageConfig, inputs: Mapping[str, Artifact]) -> Verdict:
    """What `produce` would do, and why, without doing it.

    hit: there and sound. repair: finished once, and some files are damaged or missing. resume: some units are done.
    run: nothing usable is there; the reasons are the differences from the nearest finished artifact of the stage.
    """
    identity = identify(store, stage, name, config, inputs)
    finding = inspect(identity.url)
    problems = unusable(stage, identity, finding)
    if finding.manifest is not None and not problems:
        return _hit(identity, finding.manifest)
    verdict = _partial(stage, identity, finding, problems)
    near = nearest(store, stage, identity)
    if near is not None:
        url, manifest = near
        rest = 1.0 - verdict.done_units / verdict.total_units if verdict.total_units else 1.0
        verdict = replace(
            verdict,
            nearest=url,
            seconds=manifest.seconds * rest,
            cost=manifest.cost * rest,
            tokens=manifest.tokens,
        )
    if verdict.state == "run" and not verdict.reasons:
        reasons = differences(near[1], stage, identity) if near else ["nothing of this stage is finished yet"]
        verdict = replace(verdict, reasons=tuple(reasons))
    if is_held(identity.url):
        state, _ = read_lease(identity.url)
        verdict = replace(verdict, warnings=(*verdict.warnings, f"being made now by {state}"))
    return verdict


def render_verdict(verdict: Verdict) -> str:
    """One line: units, reasons, estimate, warnings."""
    parts: list[str] = []
    if verdict.state in ("resume", "repair") and verdict.done_units:
        of = f" of {verdict.total_units:,}" if verdict.total_units is not None else ""
        parts.append(f"{verdict.done_units:,}{of} units done")
    parts += verdict.reasons[:MAX_REASONS]
    if len(verdict.reasons) > MAX_REASONS:
        parts.append(f"and {len(verdict.reasons) - MAX_REASONS} more differences")
    if verdict.seconds is not None and verdict.state != "hit":
        tokens = f", {verdict.tokens:,} tokens" if verdict.tokens else ""
        cost = f", {verdict.cost:,.2f} USD" if verdict.cost else ""
        parts.append(f"about {_duration(verdict.seconds)}{tokens}{cost}")
    parts += [f"WARNING {warning}" for warning in verdict.warnings]
    return "; ".join(parts)


def nearest(store: str, stage: Stage, identity: Identity) -> tuple[str, Manifest] | None:
    """The finished artifact of the stage that differs least; of equals, one of the same name, then the latest."""
    root = join(normalise(store), stage.name)
    urls = [join(root, leaf) for leaf in storage_for(root).children(root)]
    found: list[tuple[int, bool, str, str, Manifest]] = []
    for url, data in zip(urls, read_all([join(url, MANIFEST) for url in urls]), strict=True):
        if data is None:
            continue
        try:
            manifest = Manifest.from_json(data)
        except ValueError:
            continue
        found.append((len(differences(manifest, stage, identity)), manifest.name != identity.name, url, url, manifest))
    if not found:
        return None
    fewest = min(found, key=lambda item: item[:2])[:2]
    best = max((item for item in found if item[:2] == fewest), key=lambda item: item[4].finished)
    return best[3], best[4]


def differences(old: Manifest, stage: Stage, identity: Identity) -> list[str]:
    """Field by field, what makes a step another one than a finished artifact."""
    reasons = [] if old.version == stage.version else [f"version: {old.version} -> {stage.version}"]
    before, after = dict(_flat(old.config)), dict(_flat(identity.config))
    for key in sorted(before.keys() | after.keys()):
        if before.get(key, _ABSENT) != after.get(key, _ABSENT):
            reasons.append(f"{key}: {_shown(before, key)} -> {_shown(after, key)}")
    for role in sorted(old.parents.keys() | identity.parents.keys()):
        was, now = old.parents.get(role), identity.parents.get(role)
        if was is None or now is None:
            reasons.append(f"parent {role}: {'added' if was is None else 'removed'}")
        elif was.content_digest != now.content_digest:
            reasons.append(f"parent {role}: content changed ({was.content_digest[:8]} -> {now.content_digest[:8]})")
    if old.code_digest != identity.code_digest:
        reasons.append("code changed")
    if not reasons:
        reasons.append(f"the same work is finished under the name {old.name!r}")
    return reasons


def _hit(identity: Identity, manifest: Manifest) -> Verdict:
    units = len(manifest.ledger)
    drift = manifest.code_digest != identity.code_digest
    return Verdict(
        "hit",
        identity.url,
        Artifact(identity.url, manifest),
        done_units=units,
        total_units=units,
        warnings=(f"{code_changed(manifest)}; it stays, until --rerun or a new version",) if drift else (),
        seconds=0.0,
        cost=0.0,
        tokens=manifest.tokens,
    )


def _partial(stage: Stage, identity: Identity, finding: Finding, problems: list[str]) -> Verdict:
    """The verdict of what is not a hit, by the units that could be kept."""
    sizes = storage_for(identity.url).find(identity.url)
    usable = [
        record
        for record in read_ledger(identity.url)
        if (stage.expensive or record.code_digest == identity.code_digest)
        and not check_unit(identity.url, record, sizes=sizes)
    ]
    stale = [record for record in usable if record.code_digest != identity.code_digest]
    total = len(finding.manifest.ledger) if finding.manifest else read_run(identity.url).units
    state: State = "repair" if finding.damage else "resume" if usable else "run"
    return Verdict(
        state,
        identity.url,
        done_units=len(usable),
        total_units=total,
        reasons=tuple(problems),
        warnings=(f"{len(stale)} finished units were made by other code and are kept",) if stale else (),
    )


_ABSENT = object()


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{prefix}.{index}")
    else:
        yield prefix, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "(absent)"
    text = json.dumps(values[key], ensure_ascii=False)
    return text if len(text) <= SHOWN_CHARS else f"{text[: SHOWN_CHARS - 1]}…"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def total_seconds(verdicts: Sequence[Verdict]) -> float:
    """What remains of a plan, as far as it is known."""
    return sum(verdict.seconds or 0.0 for verdict in verdicts)
