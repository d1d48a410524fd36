"""The stage RELEASE: a directory that can be published, proved to be read alike elsewhere, with all papers it needs.

Units: `proof` (transformers and vLLM continue prompts as our decoder does), then `files` (everything, card included).
What a licence of the lineage asks for is checked before the proof, and refuses the release when it is missing.
"""

import json
import os
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

from model.convert import config_from_hf
from tasks.artifact import Artifact, Stage, Workspace
from tasks.artifact.lineage import Lineage, Node, lineage
from tasks.errors import DataFault
from tasks.inference import TextCodec, model_directory, read_config
from tasks.licences import check_release, duties, licence, text_of
from tasks.progress import track
from tasks.release.card import CardFacts, render, sources
from tasks.release.config import ReleaseConfig
from tasks.release.prove import prove
from tasks.tokens import TOKENIZER_FILES

NOTICES = "notices/"  # where any artifact of the lineage keeps the copyright texts it brought
PROOF, FILES = "proof", "files"
NEEDED = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def run(ws: Workspace, config: ReleaseConfig, inputs: dict[str, Artifact]) -> None:
    """Papers, proof, files."""
    model = inputs["model"]
    graph = lineage(model.url)
    require_whole(graph)
    source = model_directory(model)
    papers = licence_papers(config, graph)
    with track(f"release {ws.name}", 3, "parts") as bar:
        directory = stage_files(ws.scratch / config.model_name, source)
        facts = card_facts(config, graph, source, papers, inputs.get("eval"), {})
        check_release(config.model_name, graph.licences, {**as_text(papers), "README.md": render(facts)})
        bar.advance(1, note="licences checked")
        record = ws.unit_record(PROOF)
        if record is None:
            with ws.unit(PROOF) as unit:
                proof = prove(config, directory, ws.scratch)
                unit.write_json("proof.json", proof)
                unit.note(proof=proof)
        else:
            proof = record.facts["proof"]
        bar.advance(1, note="proved")
        if ws.unit_record(FILES) is None:
            card = render(card_facts(config, graph, source, papers, inputs.get("eval"), proof))
            check_release(config.model_name, graph.licences, {**as_text(papers), "README.md": card})
            with ws.unit(FILES) as unit:
                for path in sorted(directory.iterdir()):
                    unit.add_file(f"{config.model_name}/{path.name}", path)
                for path, content in sorted((papers | {"README.md": card.encode()}).items()):
                    unit.write_bytes(f"{config.model_name}/{path}", content)
        bar.advance(1, note="written")


def require_whole(graph: Lineage) -> None:
    """A lineage with a hole has duties that nobody knows.

    Raises:
        DataFault: an ancestor is gone from the store.
    """
    gone = [node.label for node in graph.nodes if node.is_missing]
    if gone:
        raise DataFault(
            f"{', '.join(gone)} of the model's lineage {'is' if len(gone) == 1 else 'are'} no longer in the store: the "
            "licences, notices and counts of a release are read from all ancestors. Run the flow that made them again."
        )


def licence_papers(config: ReleaseConfig, graph: Lineage) -> dict[str, bytes]:
    """NOTICE, LICENSES/ and NOTICES/ of a release, by path.

    Raises:
        DataFault: a source under a licence that asks for its copyright notice brought none.
        ConfigError: a licence that the table does not know.
    """
    asked = duties(graph.licences)
    papers = {f"LICENSES/{name}": text_of(name) for name in asked.texts}
    without: list[str] = []
    for node in graph.nodes:
        assert node.manifest is not None
        artifact = Artifact(node.url, node.manifest)
        for entry in artifact.files(NOTICES):
            name = entry.path.removeprefix(NOTICES)
            papers[f"NOTICES/{node.stage}-{node.name}/{name}"] = artifact.read_bytes(entry.path)
        if node in graph.sources:
            without += [f"{node.label}: {missing}" for missing in silent_sources(artifact)]
    if without:
        raise DataFault(
            f"no copyright notice came with {', '.join(without)}: these licences ask that the notice of each work is "
            f"passed on, so the stage that brings a work in keeps it under {NOTICES}. Make that artifact again with "
            "its notices, or leave the source out."
        )
    for name, place in config.licence_files.items():
        papers[f"LICENSES/{name}"] = Path(place).read_bytes()
    papers["NOTICE"] = notice(config, graph).encode()
    return papers


def silent_sources(artifact: Artifact) -> list[str]:
    """The works of a raw source that brought no copyright notice although their licence asks for it."""
    there = {entry.path.removeprefix(NOTICES).rpartition(".")[0] for entry in artifact.files(NOTICES) if entry.bytes}
    listed = artifact.manifest.extra.get("sources")
    if not listed:  # a teacher, or a stage that brings one work
        asking = [one for one in artifact.manifest.licences if licence(one).source_notice]
        return [] if there or not asking else [", ".join(asking)]
    return [
        f"{source['name']} ({source['licence']})"
        for source in listed
        if licence(source["licence"]).source_notice and source["name"] not in there
    ]


def notice(config: ReleaseConfig, graph: Lineage) -> str:
    """The NOTICE file: the lines that licences prescribe, word for word, then what was used."""
    asked = duties(graph.licences)
    parts = [config.model_name, *asked.notice_lines]
    if asked.built_with:
        parts.append(" ".join(asked.built_with))
    parts.append("Made with Nestling from works under these licences:")
    parts.append("\n".join(f"- {one}: {licence(one).name} {licence(one).url}".rstrip() for one in graph.licences))
    credits = [
        f"- {one['name']} ({one['licence']}): {one.get('attribution') or 'see NOTICES/'}" for one in sources(graph)
    ]
    if credits:
        parts.append("Sources:\n" + "\n".join(credits))
    conditions = list(dict.fromkeys(text for one in graph.licences for text in licence(one).conditions))
    if conditions:
        parts.append("Conditions:\n" + "\n".join(f"- {text}" for text in conditions))
    return "\n\n".join(parts) + "\n"


def stage_files(directory: Path, source: Path) -> Path:
    """The files of the model in a scratch directory: weights linked, not copied; generation_config.json made if absent.

    Raises:
        DataFault: the model lacks a file that transformers and vLLM need.
    """
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    names = [name for name in (*TOKENIZER_FILES, "config.json", "generation_config.json") if (source / name).is_file()]
    weights = sorted(path.name for path in source.glob("*.safetensors*"))
    lacking = [name for name in NEEDED if name not in names] + ([] if weights else ["*.safetensors"])
    if lacking:
        raise DataFault(
            f"{source} lacks {', '.join(lacking)}: a release is a whole Hugging Face directory. Make the train "
            "artifact again; its tokenizer comes from the pack artifact it was trained on."
        )
    for name in [*names, *weights]:
        os.symlink((source / name).absolute(), directory / name)
    if "generation_config.json" not in names:
        (directory / "generation_config.json").write_text(generation_config(TextCodec(source)), "utf-8")
    return directory


def generation_config(codec: TextCodec) -> str:
    """What ends an answer; without it a server would go on after <end_of_turn>."""
    settings = {
        "bos_token_id": codec.bos_id,
        "eos_token_id": list(codec.stop_ids),
        "pad_token_id": codec.pad_id,
        "do_sample": False,
    }
    return json.dumps(settings, indent=2, sort_keys=True) + "\n"


def card_facts(
    config: ReleaseConfig,
    graph: Lineage,
    source: Path,
    papers: dict[str, bytes],
    evaluation: Artifact | None,
    proof: dict[str, Any],
) -> CardFacts:
    """Everything the card is computed from."""
    settings = read_config(source)
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    return CardFacts(
        config=config,
        graph=graph,
        model=settings,
        num_params=config_from_hf(source).num_params,
        weights=f"{settings.get('torch_dtype') or settings.get('dtype')}, {size:,} bytes of safetensors",
        mixtures={node.url: mixture for node in graph.nodes if (mixture := _mixture(node)) is not None},
        scores=evaluation.read_json("scores.json") if evaluation else (),
        proof=proof,
        files=sorted(path for path in papers if path != "README.md"),
    )


def as_text(papers: dict[str, bytes]) -> dict[str, str]:
    """Papers as the licence gate reads them."""
    return {path: content.decode("utf-8", "replace") for path, content in papers.items()}


def _mixture(node: Node) -> dict[str, Any] | None:
    if node.stage != "pack" or node.manifest is None:
        return None
    return Artifact(node.url, node.manifest).read_json("mixture.json")


def released_name(artifact: Artifact) -> str:
    """The model's name: the directory that holds its config.json."""
    return next(PurePosixPath(e.path).parts[0] for e in artifact.files() if e.path.endswith("/config.json"))


RELEASE = Stage(
    name="release",
    version="1",
    run=run,
    code=(
        "tasks.release",
        "tasks.licences",
        "tasks.inference",
        "tasks.artifact.lineage",
        "tasks.tokens",
        "tasks.turns",
        "model",
    ),
)
