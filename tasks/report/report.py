"""The stage REPORT: one HTML page about a factory run, complete in itself.

The page loads nothing: no script, no font, no image, no link leads out, and its content security policy forbids what it
does not need, so words from the web or from a model can neither run nor call home.
"""

import contextlib
import importlib.metadata
import itertools
import json
import platform
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifact import Artifact, Stage, Workspace
from tasks.licences import LICENCES, Licence
from tasks.page import content_security_policy, environment, style
from tasks.report.config import ReportConfig
from tasks.report.corpus import DOCUMENT_STAGES, funnels, language_name, language_order, mixtures, sketches
from tasks.report.lineage import Node, picture, trace
from tasks.report.samples import SYNTHETIC_STAGES, answers, dropped, synthetic
from tasks.report.scores import contests, headlines
from tasks.report.training import trainings

TEMPLATES = Path(__file__).parent / "templates"
UNIT = "report"
PAGE = "report.html"
PROOF = "proof.json"
SECTIONS = (  # id, name, what must be there for it to be shown
    ("scores", "Scores", "contests"),
    ("corpus", "Corpus", "funnels"),
    ("mixture", "Mixture", "mixtures"),
    ("training", "Training", "trainings"),
    ("answers", "Answers", "answers"),
    ("proof", "Proof", "proof"),
    ("synthetic", "Synthetic rows", "synthetic"),
    ("dropped", "Dropped rows", "dropped"),
    ("time", "Time and cost", ""),
    ("licences", "Licences", "licences"),
    ("lineage", "Lineage", ""),
    ("environment", "Environment", ""),
)
PROGRAMS = ("jax", "flax", "optax", "orbax-checkpoint", "grain", "transformers", "sentencepiece", "pyarrow", "numpy")


@dataclass(frozen=True)
class LicenceRow:
    """A licence in the lineage and who brought it."""

    key: str
    licence: Licence | None
    brought_by: tuple[Node, ...]
    works: tuple[tuple[str, str], ...]  # (source, attribution), where the artifacts say so

    @property
    def duties(self) -> list[str]:
        """What the licence asks of whoever publishes something made from such works, as sentences."""
        row = self.licence
        if row is None:
            return []
        asks = [
            (row.attribution, "Name the authors."),
            (row.source_notice, "Ship the copyright notice of each work."),
            (bool(row.text or row.text_patterns), "Ship the licence's text."),
            (bool(row.name_part), f"The model's name must hold “{row.name_part}”."),
            (bool(row.built_with), f"The model card must say “{row.built_with}”"),
            (bool(row.notice_lines), "The NOTICE file must carry its lines."),
        ]
        return [*(text for needed, text in asks if needed), *row.conditions]


def run(workspace: Workspace, config: ReportConfig, inputs: dict[str, Artifact]) -> None:
    """Write report.html."""
    if workspace.unit_record(UNIT) is None:
        with workspace.unit(UNIT) as unit:
            unit.write_bytes(PAGE, render(config, inputs).encode("utf-8"))


def render(config: ReportConfig, inputs: Mapping[str, Artifact]) -> str:
    """The page. Equal inputs and config give equal text."""
    nodes = trace(inputs)
    sheet = style()
    filters = {
        "language": language_name,
        "pretty": lambda value: json.dumps(value, ensure_ascii=False, sort_keys=True, indent=1),
        "words": lambda name: re.sub(r"[_-]+", " ", str(name)),
    }
    page = environment(TEMPLATES, **filters).get_template("report.html.jinja")
    return page.render(
        config=config,
        style=sheet,
        policy=content_security_policy(sheet),
        **_summary(nodes, config),
        **_sections(nodes, config),
    )


def _summary(nodes: Sequence[Node], config: ReportConfig) -> dict[str, Any]:
    """What stands at the top and at the end, and the lineage itself."""
    manifests = [node.manifest for node in nodes if node.manifest is not None]
    return {
        "title": config.title or model_name(nodes) or "Factory run",
        "released": next((node for node in reversed(nodes) if node.stage == "release"), None),
        "warnings": [*config.warnings, *_warnings(nodes)],
        "nodes": nodes,
        "by_key": {node.key: node for node in nodes},
        "made": [node for node in nodes if node.manifest is not None],
        "picture": picture(nodes),
        "teachers": sorted({teacher for manifest in manifests for teacher in manifest.teachers}),
        "seconds": sum(manifest.seconds for manifest in manifests),
        "cost": sum(manifest.cost for manifest in manifests),
        "hosts": sorted({manifest.host for manifest in manifests if manifest.host}),
        "commits": sorted({manifest.git_commit for manifest in manifests if manifest.git_commit}),
        "versions": _versions(nodes),
        "programs": programs(),
    }


def _sections(nodes: Sequence[Node], config: ReportConfig) -> dict[str, Any]:
    """What the sections between show, and which of them have anything to show."""
    shown = (nodes, config.samples, config.sample_chars)
    all_funnels, all_mixtures, rivals = funnels(nodes), mixtures(nodes), contests(nodes, config.before)
    corpora = [funnel for funnel in all_funnels if funnel.stage in DOCUMENT_STAGES]
    synthesis = [funnel for funnel in all_funnels if funnel.stage in SYNTHETIC_STAGES]
    languages = sorted({item.language for mixture in all_mixtures for item in mixture.ingredients}, key=language_order)
    found: dict[str, Any] = {
        "headlines": headlines(rivals, config.before, config.after),
        "contests": rivals,
        "funnels": all_funnels,
        "mixtures": all_mixtures,
        "sketches": sketches(nodes),
        "trainings": trainings(nodes),
        "answers": answers(*shown),
        "synthetic": synthetic(*shown),
        "dropped": [(node, list(groups)) for node, groups in itertools.groupby(dropped(*shown), lambda g: g.node)],
        "proof": proof_rows(nodes),
        "licences": licence_rows(nodes),
    }
    return found | {
        "funnel_groups": [
            ("Corpora", sorted(corpora, key=lambda funnel: language_order(funnel.language))),
            ("Synthesis", synthesis),
        ],
        "other_funnels": [funnel for funnel in all_funnels if funnel not in (*corpora, *synthesis)],
        "language_colour": {code: f"c{min(index, 5)}" for index, code in enumerate(languages)},
        "sections": [(key, name, not needs or bool(found[needs])) for key, name, needs in SECTIONS],
    }


def model_name(nodes: Sequence[Node]) -> str:
    """What the release calls its model: the folder that holds its config.json."""
    for node in reversed(nodes):
        if node.stage == "release" and node.manifest is not None:
            for entry in node.manifest.files:
                folder, _, file = entry.path.rpartition("/")
                if file == "config.json" and folder and "/" not in folder:
                    return folder
            return node.name
    return ""


def licence_rows(nodes: Sequence[Node]) -> list[LicenceRow]:
    """Every licence of the lineage with the artifacts that brought it (those whose parents did not have it)."""
    by_key = {node.key: node for node in nodes}
    brought: dict[str, list[Node]] = {}
    for node in nodes:
        if node.manifest is None:
            continue
        parents = [by_key[key].manifest for _, key in node.parents]
        inherited = {licence for manifest in parents if manifest for licence in manifest.licences}
        for licence in node.manifest.licences:
            brought.setdefault(licence, [])
            if licence not in inherited:
                brought[licence].append(node)
    return [
        LicenceRow(key, LICENCES.get(key), tuple(brought[key]), tuple(_works(key, brought[key])))
        for key in sorted(brought)
    ]


def _works(licence: str, nodes: Sequence[Node]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        sources: Any = node.manifest.extra.get("sources") if node.manifest else None
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, dict) and source.get("licence") == licence:
                yield str(source.get("name", "")), str(source.get("attribution", ""))


def proof_rows(nodes: Sequence[Node]) -> list[dict[str, Any]]:
    """What each program that read the released model back found (proof.json)."""
    rows: list[dict[str, Any]] = []
    for node in nodes:
        if node.artifact is not None and any(entry.path == PROOF for entry in node.artifact.manifest.files):
            paths = node.artifact.read_json(PROOF).get("paths")
            rows += [path for path in paths if isinstance(path, dict)] if isinstance(paths, list) else []
    return rows


def programs() -> list[tuple[str, str]]:
    """Python and the packages that matter most, with their versions here and now."""
    found = [("Python", platform.python_version())]
    for name in PROGRAMS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((name, importlib.metadata.version(name)))
    return found


def _warnings(nodes: Sequence[Node]) -> list[str]:
    said: list[str] = []
    absent = [node.label for node in nodes if node.artifact is None]
    if absent:
        said.append(f"Part of the lineage cannot be read any more, so figures below leave it out: {', '.join(absent)}.")
    labels = {node.key: node.label for node in nodes}
    stale = [
        f"{labels[key]} (read by {node.label})" for node in nodes for role, key in node.parents if role in node.stale
    ]
    if stale:
        said.append(f"Made again since, with other content than what was read then: {', '.join(stale)}.")
    return said


def _versions(nodes: Sequence[Node]) -> list[tuple[str, str]]:
    """Versions that stages noted of the programs they ran."""
    found: dict[str, set[str]] = {}
    for node in nodes:
        noted: Any = node.manifest.extra.get("versions") if node.manifest else None
        for name, version in noted.items() if isinstance(noted, dict) else ():
            found.setdefault(str(name), set()).add(str(version))
    return [(name, ", ".join(sorted(versions))) for name, versions in sorted(found.items())]


REPORT = Stage(name="report", version="1", run=run, code=("tasks.report", "tasks.page", "tasks.licences"))
