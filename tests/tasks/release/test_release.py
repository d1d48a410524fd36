"""The stage: what it writes, what its card says, and everything that refuses it."""

import dataclasses
import json
import subprocess
import sys

import pytest

from tasks.artifact import produce
from tasks.errors import ConfigError, DataFault
from tasks.release import release
from tasks.release.config import ReleaseConfig
from tasks.release.release import RELEASE, released_name, stage_files
from tests.tasks.release.conftest import build

PROOF = {
    "paths": [
        {
            "path": "transformers",
            "version": "5.19.0",
            "prompts": 4,
            "tokens": 32,
            "ties": 1,
            "max_logprob_difference": 8.7e-6,
            "allowed": 1e-3,
        }
    ]
}


def config(**changes):
    return ReleaseConfig(
        model="m", eval="e", model_name="Nestling-Tiny-ja", languages=("ja", "en"), serve=False
    ).with_changes(changes)


@pytest.fixture
def proves(monkeypatch):
    """Stands for the proof, which has its own tests; counts how often it ran."""
    runs = []
    monkeypatch.setattr(release, "prove", lambda *args: runs.append(args) or PROOF)
    return runs


def make(root, inputs, **changes):
    return produce(str(root / "store"), RELEASE, "tiny", config(**changes), inputs)


def text(artifact, path):
    return artifact.read_bytes(f"Nestling-Tiny-ja/{path}").decode()


def test_a_release_is_a_whole_directory_with_its_papers(tmp_path, world, proves):
    made = make(tmp_path, world)
    names = {entry.path.removeprefix("Nestling-Tiny-ja/") for entry in made.files("Nestling-Tiny-ja/")}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "README.md",
        "NOTICE",
        "LICENSES/Apache-2.0.txt",
        "LICENSES/GPL-2.0.txt",
        "NOTICES/mirror-ja/debian.txt",
    }
    assert released_name(made) == "Nestling-Tiny-ja"
    assert made.read_json("proof.json") == PROOF
    weights = [
        a.entry(path).sha256
        for a, path in ((made, "Nestling-Tiny-ja/model.safetensors"), (world["model"], "model/model.safetensors"))
    ]
    assert weights[0] == weights[1]
    assert json.loads(text(made, "generation_config.json"))["eos_token_id"] == [1, 5]
    assert "Osamu Aoki" in text(made, "NOTICES/mirror-ja/debian.txt")


def test_the_card_says_what_the_lineage_knows(tmp_path, world, proves):
    card = text(make(tmp_path, world, description="A demonstration.", citation="@misc{x}"), "README.md")
    for line in (
        'language: ["ja", "en"]',
        'license: ["apache-2.0", "gpl-2.0"]',
        "# Nestling-Tiny-ja",
        "A demonstration.",
        "1 training run on 1,400,832 tokens",
        "| parameters | 131,648 (the embedding table counted once) |",
        "| heads (query / key-value) | 4 / 2 |",
        "| run | size | steps | batch (tokens) | tokens | peak LR | schedule | last loss |",
        "| tiny-cpt | gemma2/tiny | 171 | 8,192 | 1,400,832 | 0.002 | cosine | 2.35 |",
        "| debian | debian | GPL-2.0-or-later | The Debian authors |",
        "| ja | ja | 75.0% | 30 | 3,000 | 9,000 | 1.50 |",
        "| synth\\|x | en | 25.0% |",
        "| clean/ja | 8 | 0 | not_japanese 5, short_lines 3 |",
        "| synth/qa-en | 7 | 0 | too_short 7 | SmolLM2-135M-Instruct | Apache-2.0 |",
        "| benchmark | language | better | base | cpt | sft | base to sft | items |",
        "| bits_per_byte | ja | lower | 3 ± 0.05 | 2 ± 0.05 | 2.1 ± 0.05 | -30.0% | 24 |",
        "| bits_per_byte | en | lower | 1.5 ± 0.05 | 1.56 ± 0.05 | 1.6 ± 0.05 | +6.7% | 24 |",
        "| continuation, accuracy | ja | higher (chance 0.25) |  |  | 0.5 ± 0.07 |  | 48 |",
        "| decontaminate/ja | 4 | 0 | contaminated:jsquad 4 |",
        "## Contamination",
        "| data | benchmark | items looked for | too short or common | rows dropped | items found | by rule | in ",
        "| ja | jsquad | 65 | 5 | 1,234 | 12 | 13 words: 34, 25 characters: 1,200 | debian: 1,234 |",
        "transformers 5.19.0 gives the same greedy tokens",
        "4 prompts of 32 new tokens each (1 ended at a tie)",
        "8.7e-06 (allowed 1e-03)",
        "| GPL-2.0-or-later | [GNU General Public License 2 or later](https://www.gnu.org/",
        "| mirror/ja |",
        "[LICENSES/GPL-2.0.txt](LICENSES/GPL-2.0.txt)",
        "```mermaid",
        "flowchart TD",
        "@misc{x}",
        "## Risks and limits",
    ):
        assert line in card, line


def test_the_card_is_valid_front_matter_and_a_graph_without_dangling_ends(tmp_path, world, proves):
    card = text(make(tmp_path, world), "README.md")
    _, head, _ = card.split("---\n", 2)
    values = {key: json.loads(value) for key, value in (line.split(": ", 1) for line in head.splitlines())}
    assert values["pipeline_tag"] == "text-generation"
    graph = card.split("```mermaid\n")[1].split("```")[0].splitlines()[1:]
    boxes = {line.strip().split("[")[0] for line in graph if "[" in line}
    ends = {end.strip() for line in graph if "-->" in line for end in line.split("-->")}
    assert len(boxes) == 8
    assert ends == boxes


def test_built_with_and_notice_come_from_a_teacher_far_up(tmp_path, model_files, proves):
    inputs = build(
        tmp_path, model_files, teacher_licences=("gemma",), teacher_files={"notices/GEMMA_TERMS.html": b"terms"}
    )
    made = make(tmp_path, inputs)
    assert "Built with Gemma." in text(made, "README.md").split("## Model")[0]
    assert "Gemma is provided under and subject to the Gemma Terms of Use" in text(made, "NOTICE")
    assert text(made, "NOTICES/teacher-smol/GEMMA_TERMS.html") == "terms"
    assert "prohibited_use_policy" in text(made, "NOTICE")


def test_gemma_without_its_terms_is_refused(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, teacher_licences=("gemma",))
    with pytest.raises(ConfigError, match="Gemma Terms of Use must go with the model"):
        make(tmp_path, inputs)
    assert not proves, "refused before the expensive part"


def test_a_llama_teacher_asks_for_its_name_and_its_text(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, teacher_licences=("llama3.3",))
    agreement = tmp_path / "agreement"
    agreement.write_text("LLAMA 3.3 COMMUNITY LICENSE AGREEMENT")
    files = {"LICENSE-LLAMA3.3": str(agreement)}
    with pytest.raises(ConfigError, match='lacks "Llama"'):
        make(tmp_path, inputs, licence_files=files)
    with pytest.raises(ConfigError, match=r"Llama 3\.3 Community License must go with the model"):
        make(tmp_path, inputs, model_name="Llama-Nestling")
    made = make(tmp_path, inputs, model_name="Llama-Nestling", licence_files=files)
    assert "Built with Llama." in made.read_bytes("Llama-Nestling/README.md").decode()
    assert made.entry("Llama-Nestling/LICENSES/LICENSE-LLAMA3.3")


def test_a_source_without_its_copyright_notice_is_refused(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, notices=False)
    with pytest.raises(DataFault, match=r"no copyright notice came with mirror/ja-\w+: debian \(GPL-2\.0-or-later\)"):
        make(tmp_path, inputs)


def test_a_teacher_without_the_notice_its_licence_asks_for_is_refused(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, teacher_licences=("MIT",))
    with pytest.raises(DataFault, match=r"no copyright notice came with teacher/smol-\w+: MIT"):
        make(tmp_path, inputs)
    with_notice = build(
        tmp_path / "other", model_files, teacher_licences=("MIT",), teacher_files={"notices/LICENSE": b"Copyright"}
    )
    made = make(tmp_path, with_notice)
    assert text(made, "NOTICES/teacher-smol/LICENSE") == "Copyright"
    assert "debian (GPL-2.0-or-later): The Debian authors" in text(made, "NOTICE")


def test_public_domain_sources_need_no_notice(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, notices=False, mirror_licences=("public-domain",))
    assert "LICENSES/Apache-2.0.txt" in str([entry.path for entry in make(tmp_path, inputs).files()])


def test_an_unknown_licence_is_refused(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, mirror_licences=("GPL-2+",))
    with pytest.raises(ConfigError, match=r"tasks/licences\.py"):
        make(tmp_path, inputs)


def test_a_failed_proof_leaves_no_release(tmp_path, world, monkeypatch):
    def fails(*args):
        raise DataFault("transformers does not reproduce the model")

    monkeypatch.setattr(release, "prove", fails)
    with pytest.raises(DataFault):
        make(tmp_path, world)
    assert not list((tmp_path / "store" / "release").glob("*/MANIFEST.json"))
    assert not list((tmp_path / "store" / "release").glob("*/data/**/README.md"))


def test_a_run_killed_after_the_proof_does_not_prove_again(tmp_path, world, proves, monkeypatch):
    render, calls = release.render, []

    def killed(facts):
        calls.append(facts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return render(facts)

    monkeypatch.setattr(release, "render", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path, world)
    assert len(proves) == 1
    monkeypatch.setattr(release, "render", render)
    made = make(tmp_path, world)
    assert len(proves) == 1
    assert "transformers 5.19.0" in text(made, "README.md")


def test_a_lineage_with_a_hole_is_refused(world):
    graph = release.lineage(world["model"].url)
    holed = dataclasses.replace(graph, nodes=(dataclasses.replace(graph.nodes[0], manifest=None), *graph.nodes[1:]))
    release.require_whole(graph)
    with pytest.raises(DataFault, match="no longer in the store"):
        release.require_whole(holed)


def test_a_model_without_a_chat_template_is_refused(tmp_path, world):
    source = tmp_path / "model"
    source.mkdir()
    for path in world["model"].local_dir("model").iterdir():
        if path.name != "chat_template.jinja":
            (source / path.name).write_bytes(path.read_bytes())
    with pytest.raises(DataFault, match=r"lacks chat_template\.jinja"):
        stage_files(tmp_path / "staged", source)


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "日本語", "x" * 97, "a b"])
def test_a_name_that_is_no_directory_name_is_refused(name):
    with pytest.raises(ValueError, match="model_name"):
        config(model_name=name)


def test_licence_files_count_by_content(tmp_path):
    for name, content in (("a", "text"), ("b", "text"), ("c", "other")):
        (tmp_path / name).write_text(content)
    semantic = [config(licence_files={"L": str(tmp_path / name)}).semantic() for name in "abc"]
    assert semantic[0] == semantic[1] != semantic[2]
    with pytest.raises(ConfigError, match="cannot be read"):
        config(licence_files={"L": str(tmp_path / "gone")}).semantic()


def test_chat_answers_a_pipe_line_by_line(world):
    code = (
        "import sys; from tasks.artifact import open_artifact; from tasks.release.chat import chat; "
        "sys.exit(chat(open_artifact(sys.argv[1])))"
    )
    words = "方針とは?\n\n/new\n" + "長い" * 300 + "\n/quit\nnever read\n"
    done = subprocess.run(
        [sys.executable, "-c", code, world["model"].url],
        input=words,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    answer, _, rest = done.stdout.strip().rpartition("\n")
    assert answer.strip(), "the first question is answered"
    assert "longer than the 128 tokens" in rest, "the second is refused, and nothing after /quit is read"


def test_a_licence_that_the_hub_has_no_name_for_is_named_beside(tmp_path, model_files, proves):
    inputs = build(tmp_path, model_files, mirror_licences=("GPL-2.0-or-later", "PSF-2.0"))
    made = make(tmp_path, inputs)
    head = text(made, "README.md").split("---\n")[1]
    assert 'license: ["apache-2.0", "gpl-2.0", "other"]' in head
    assert 'license_name: "PSF-2.0"' in head
    assert 'license_link: "NOTICE"' in head
    assert "PYTHON SOFTWARE FOUNDATION LICENSE" in text(made, "LICENSES/PSF-2.0.txt")
