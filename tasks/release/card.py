"""The model card: everything in it is computed from the lineage, the evaluation and the proof.

Pure: equal facts give equal text. What the factory does not know it does not say.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tasks.artifact.lineage import Lineage, Node
from tasks.licences import duties, licence
from tasks.release.config import ReleaseConfig

DOCUMENT_STAGES = ("mirror", "clean", "dedup", "decontaminate")
SYNTHETIC_STAGES = ("synth", "instruct")


@dataclass(frozen=True)
class CardFacts:
    """What the card is made of."""

    config: ReleaseConfig
    graph: Lineage  # of the model
    model: Mapping[str, Any]  # config.json
    num_params: int
    weights: str  # type and size of the weights, in words
    mixtures: Mapping[str, Mapping[str, Any]]  # URL of a pack artifact -> its mixture.json
    scores: Sequence[Mapping[str, Any]] = ()
    proof: Mapping[str, Any] = field(default_factory=dict)
    files: Sequence[str] = ()  # licence texts and notices in the release


def render(facts: CardFacts) -> str:
    """README.md of the release."""
    sections = [
        front_matter(facts),
        head(facts),
        architecture(facts),
        training(facts),
        data(facts),
        evaluation(facts),
        contamination(facts),
        how_to_run(facts),
        licences(facts),
        f"## Risks and limits\n\n{facts.config.risks}",
        picture(facts),
        f"## Citation\n\n```bibtex\n{facts.config.citation}\n```" if facts.config.citation else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def front_matter(facts: CardFacts) -> str:
    """The YAML that the Hugging Face hub reads; every text is quoted as JSON, which is YAML too."""
    ids = [licence(one).hub_id for one in facts.graph.licences]
    entries: dict[str, Any] = {
        "language": list(facts.config.languages),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": list(dict.fromkeys(ids)) or ["other"],
        "license_name": ", ".join(one for one in facts.graph.licences if licence(one).hub_id == "other"),
        "license_link": "NOTICE" if "other" in ids else "",
        "base_model": list(facts.config.base_models),
        "tags": ["nestling", str(facts.model.get("model_type", ""))],
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in entries.items() if value]
    return "\n".join(["---", *lines, "---"])


def head(facts: CardFacts) -> str:
    """Title, "Built with" lines, what it is."""
    built = " ".join(duties(facts.graph.licences).built_with)
    trained = _trained(facts.graph)
    tokens = sum(node.manifest.tokens or 0 for node in trained if node.manifest)
    what = (
        f"A language model of {facts.num_params:,} parameters for {_listed(facts.config.languages)}, made by "
        f"Nestling in {len(trained)} training "
        f"{'run' if len(trained) == 1 else 'runs'}" + (f" on {tokens:,} tokens" if tokens else "") + ". "
        "Every number on this card was computed from the manifests of the artifacts it was made from."
    )
    return "\n\n".join(part for part in (f"# {facts.config.model_name}", built, facts.config.description, what) if part)


def architecture(facts: CardFacts) -> str:
    """The shape of the model."""
    model = facts.model
    rows = [
        ("family", model.get("model_type")),
        ("parameters", f"{facts.num_params:,} (the embedding table counted once)"),
        ("layers", model.get("num_hidden_layers")),
        ("width", model.get("hidden_size")),
        ("heads (query / key-value)", f"{model.get('num_attention_heads')} / {model.get('num_key_value_heads')}"),
        ("head size", model.get("head_dim")),
        ("MLP width", model.get("intermediate_size")),
        ("vocabulary", _count(model.get("vocab_size"))),
        ("context (tokens)", _count(model.get("max_position_embeddings"))),
        ("weights", facts.weights),
    ]
    return "## Model\n\n" + _table(("", ""), [row for row in rows if row[1] is not None])


def training(facts: CardFacts) -> str:
    """One line a training run: steps, batch, learning rate, tokens. Two equal runs differ in time and host, but not in
    their card: those stand in the manifests and in the report."""
    rows: list[tuple[Any, ...]] = []
    for node in _trained(facts.graph):
        manifest = node.manifest
        assert manifest is not None
        knobs = {**manifest.config, **manifest.extra}
        batch = _find(knobs, "batch_tokens")
        steps = _find(knobs, "steps", "num_steps", "total_steps")
        if steps is None and batch and manifest.tokens:
            steps = manifest.tokens // batch  # every step is one whole batch
        rows.append(
            (
                node.name,
                _shown(_find(knobs, "model")),
                _count(steps),
                _count(batch),
                _count(manifest.tokens),
                _shown(_find(knobs, "peak_lr")),
                _shown(_find(knobs, "schedule")),
                _figure(_find(knobs, "final_loss")),
            )
        )
    if not rows:
        return ""
    names = ("run", "size", "steps", "batch (tokens)", "tokens", "peak LR", "schedule", "last loss")
    return "## Training\n\n" + _table(names, rows)


def data(facts: CardFacts) -> str:
    """Mixtures as they were trained on, then what each source went through, with filters and teachers."""
    parts = ["## Training data"]
    for node in facts.graph.nodes:
        mixture = facts.mixtures.get(node.url)
        if mixture is None:
            continue
        rows = [
            (
                source.get("name"),
                source.get("language"),
                _percent(source.get("weight")),
                _count(source.get("records")),
                _count(source.get("tokens")),
                _count(source.get("bytes")),
                f"{float(source.get('epochs') or 0):.2f}",
            )
            for source in mixture.get("sources", [])
        ]
        names = ("source", "language", "share of tokens", "records", "tokens", "bytes", "epochs")
        parts.append(f"### Mixture `{node.name}` ({mixture.get('kind')})\n\n" + _table(names, rows))
    brought = sources(facts.graph)
    if brought:
        names = ("source", "kind", "licence", "by")
        rows = [tuple(source.get(key) for key in ("name", "kind", "licence", "attribution")) for source in brought]
        parts.append("### Raw sources\n\n" + _table(names, rows))
    rows = [row for node in facts.graph.nodes if (row := _source_row(node))]
    if rows:
        names = ("artifact", "rows in", "rows kept", "dropped, by reason", "teachers", "licences")
        parts.append("### Filters and teachers\n\n" + _table(names, rows))
    return "\n\n".join(parts) if len(parts) > 1 else ""


def evaluation(facts: CardFacts) -> str:
    """All scores, one column a model, and the change from the model named `before` to the last one."""
    if not facts.scores:
        return ""
    models = list(dict.fromkeys(str(score["model"]) for score in facts.scores))
    before = facts.config.before if facts.config.before in models else models[0]
    contests: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for score in facts.scores:
        key = (str(score["task"]), str(score["language"]), str(score["metric"]))
        contests.setdefault(key, {})[str(score["model"])] = score
    rows: list[tuple[Any, ...]] = []
    for (task, language, metric), by_model in contests.items():
        last = by_model.get(models[-1])
        start = by_model.get(before)
        better = "lower" if not next(iter(by_model.values())).get("higher_is_better", True) else "higher"
        chance = next(iter(by_model.values())).get("chance")
        rows.append(
            (
                task if task == metric else f"{task}, {metric}",
                language,
                better + (f" (chance {chance:g})" if chance is not None else ""),
                *(_score(by_model.get(model)) for model in models),
                _change(start, last) if last is not start else "",
                max(int(score.get("n") or 0) for score in by_model.values()),
            )
        )
    names = ("benchmark", "language", "better", *models, f"{before} to {models[-1]}", "items")
    one = facts.scores[0]
    conditions = ", ".join(
        f"{name} {one[key]}"
        for name, key in (
            ("backend", "backend"),
            ("dtype", "dtype"),
            ("context", "context_tokens"),
            ("batch tokens", "batch_tokens"),
        )
        if key in one
    )
    versions = ", ".join(f"{name} {value}" for name, value in dict(one.get("versions", {})).items())
    note = "± is one standard error over items. Held-out documents are disjoint from the training documents (by hash)."
    if conditions:
        note += f" Computed with {conditions}" + (f"; {versions}." if versions else ".")
    return "## Evaluation\n\n" + _table(names, rows) + f"\n\n{note}"


def contamination(facts: CardFacts) -> str:
    """Benchmark items that were looked for in each part of the training data, and what was dropped for them."""
    rows: list[tuple[Any, ...]] = []
    for node in facts.graph.nodes:
        found = node.manifest.extra.get("benchmarks", {}) if node.manifest and node.stage == "decontaminate" else {}
        for name, one in found.items():
            rows.append(
                (
                    node.name,
                    name,
                    _count(one["items"] - one["too_short"] - one["common"]),
                    _count(one["too_short"] + one["common"]),
                    _count(one["rows"]),
                    _count(one["items_found"]),
                    ", ".join(f"{rule}: {count:,}" for rule, count in one["rules"].items()),
                    ", ".join(f"{source}: {count:,}" for source, count in one["sources"].items()),
                )
            )
    if not rows:
        return ""
    names = ("data", "benchmark", "items looked for", "too short or common", "rows dropped", "items found", "by rule")
    note = (
        "Rows of the training data that hold an item of a benchmark were dropped: a window of words (or of letters, in "
        "scripts without spaces), a whole short item, or a passage that is nearly the same. Paraphrases and "
        "translations are not found in this way."
    )
    return f"## Contamination\n\n{note}\n\n" + _table((*names, "in source"), rows)


def how_to_run(facts: CardFacts) -> str:
    """Snippets, and what was proved about them."""
    name = facts.config.model_name
    python = (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")\n'
        f'model = AutoModelForCausalLM.from_pretrained("{name}", dtype="float32", attn_implementation="eager")\n'
        'messages = [{"role": "user", "content": "…"}]\n'
        'ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")\n'
        "print(tokenizer.decode(model.generate(**ids, max_new_tokens=64)[0]))"
    )
    serve = f"python -m vllm.entrypoints.openai.api_server --model {name} --dtype float32"
    parts = ["## How to run", f"```python\n{python}\n```", f"```sh\n{serve}\n```"]
    for path in facts.proof.get("paths", []):
        ties = f" ({path['ties']} ended at a tie)" if path.get("ties") else ""
        parts.append(
            f"Proved at release: {path['path']} {path['version']} gives the same greedy tokens as the trainer's own "
            f"decoder for {path['prompts']} prompts of {path['tokens']} new tokens each{ties}; largest difference of a "
            f"log-probability {path['max_logprob_difference']:.1e} (allowed {path['allowed']:.0e})."
        )
    return "\n\n".join(parts)


def licences(facts: CardFacts) -> str:
    """Every licence of the lineage, who brought it, what it asks, and where its text is."""
    rows: list[tuple[Any, ...]] = []
    for one in facts.graph.licences:
        row = licence(one)
        brought = sorted({_short(node) for node in _bringers(facts.graph, one)})
        name = f"[{row.name}]({row.url})" if row.url else row.name
        asks = [*(["Attribution."] if row.attribution else []), *row.conditions]
        rows.append((one, name, ", ".join(brought), " ".join(asks)))
    parts = [
        "## Licences",
        "The union of the licences of everything this model was made from. Whether weights are a derivative of the "
        "documents they learned from is not settled; the duties of all of them are met here, and you should meet them "
        "too.",
        _table(("id", "licence", "brought by", "asks"), rows),
    ]
    if facts.files:
        parts.append("Texts and notices: " + ", ".join(f"[{path}]({path})" for path in facts.files) + ".")
    return "\n\n".join(parts)


def picture(facts: CardFacts) -> str:
    """The lineage as a Mermaid graph, which the hub draws, and as a table with fingerprints."""
    keys = {node.url: f"n{i}" for i, node in enumerate(facts.graph.nodes)}
    lines = ["flowchart TD"]
    lines += [f'    {keys[node.url]}["{node.stage}<br/>{node.name}"]' for node in facts.graph.nodes]
    lines += sorted({f"    {keys[edge.parent]} --> {keys[edge.child]}" for edge in facts.graph.edges}, key=_by_number)
    rows = [(node.stage, node.name, f"`{node.fingerprint[:12]}`") for node in facts.graph.nodes]
    return (
        "## Lineage\n\n```mermaid\n" + "\n".join(lines) + "\n```\n\n" + _table(("stage", "name", "fingerprint"), rows)
    )


def _trained(graph: Lineage) -> list[Node]:
    return [node for node in graph.nodes if node.stage == "train" and node.manifest is not None]


def _bringers(graph: Lineage, licence_id: str) -> Iterable[Node]:
    """The artifacts that declare a licence which none of their parents has."""
    by_url = {node.url: node for node in graph.nodes}
    for node in graph.nodes:
        inherited = {one for edge in graph.edges if edge.child == node.url for one in by_url[edge.parent].licences}
        if licence_id in node.licences and licence_id not in inherited:
            yield node


def sources(graph: Lineage) -> list[Mapping[str, Any]]:
    """What the mirrors of the lineage say of their sources: name, kind, licence, attribution."""
    found: dict[str, Mapping[str, Any]] = {}
    for node in graph.nodes:
        for source in node.manifest.extra.get("sources", ()) if node.manifest and node.stage == "mirror" else ():
            found.setdefault(str(source.get("name")), source)
    return list(found.values())


def _source_row(node: Node) -> tuple[Any, ...] | None:
    if node.manifest is None or node.stage not in (*DOCUMENT_STAGES, *SYNTHETIC_STAGES, "teacher"):
        return None
    counts = node.counts
    dropped = sorted(counts.dropped.items(), key=lambda item: (-item[1], item[0]))
    return (
        _short(node),
        _count(counts.in_),
        _count(counts.out),
        ", ".join(f"{reason} {rows:,}" for reason, rows in dropped),
        ", ".join(node.teachers),
        ", ".join(node.licences),
    )


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None:
        return ""
    stderr = score.get("stderr")
    return f"{score['value']:.4g}" + (f" ± {stderr:.2g}" if stderr is not None else "")


def _change(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> str:
    """Relative for what has no upper end (bits per byte), a difference for shares and percentages."""
    if before is None or after is None:
        return ""
    if not after.get("higher_is_better", True) and before["value"]:
        return f"{after['value'] / before['value'] - 1:+.1%}"
    return f"{after['value'] - before['value']:+.3g}"


def _find(knobs: Mapping[str, Any], *names: str) -> Any:
    """The first of these names, at the top or in a nested mapping."""
    for name in names:
        if name in knobs:
            return knobs[name]
    for value in knobs.values():
        if isinstance(value, Mapping) and (found := _find(value, *names)) is not None:
            return found
    return None


def _table(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A Markdown table; columns that are empty throughout are left out. Cells hold no line break and no pipe."""
    kept = [i for i, name in enumerate(names) if not name or any(_shown(row[i]) for row in rows)]
    lines = [[names[i] for i in kept], ["---" for _ in kept]]
    lines += [[_shown(row[i]).replace("|", "\\|").replace("\n", " ") for i in kept] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: Any) -> str:
    return "" if value is None else str(value)


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, (int, float)) else ""


def _percent(value: Any) -> str:
    return f"{float(value):.1%}" if value is not None else ""


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _short(node: Node) -> str:
    return f"{node.stage}/{node.name}"


def _by_number(line: str) -> tuple[int, ...]:
    return tuple(int(part.strip().removeprefix("n")) for part in line.split("-->"))
