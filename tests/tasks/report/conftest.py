"""A store that holds a whole (toy) factory run: real artifacts made by `produce`, in the formats of the real stages."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.artifact import Artifact, Stage, Workspace, produce
from tasks.artifact.manifest import MANIFEST
from tasks.config import StageConfig
from tasks.records import CHAT, DOCUMENT, meta_json, table
from tasks.report.config import ReportConfig
from tasks.report.report import render
from tasks.storage import join, storage_for

JA = [
    "パッケージ管理システムは、ソフトウェアの導入と更新を自動で行います。設定ファイルは /etc の下に置かれます。",
    "メールサーバの設定では、まず受信するドメイン名を決めます。次に転送の規則を書きます。",
    "この章では、カーネルを自分で構築する方法を説明します。必要な道具は最初に入れておきます。",
    "ネットワークの設定は一度だけ行えば十分です。再起動の後も同じ設定が使われます。",
    "バックアップは毎日取ることをおすすめします。古いものは一か月後に消してもかまいません。",
]
EN = [
    "The package manager resolves dependencies before it unpacks an archive. Configuration files live under /etc.",
    "A mail server first decides which domains it accepts. Forwarding rules come next, one line for each alias.",
    "This chapter explains how to build a kernel of your own. Install the tools it needs before you begin.",
    "Network interfaces are configured once. The same settings are used after the next start of the machine.",
    "Keep a backup of every day for a month. Older ones may be removed when the disk is short of space.",
]
PYTHON = ['def add(a, b):\n    """Return the sum."""\n    return a + b\n', "import json\n\nprint(json.dumps({}))\n"]
TEXTS = {"ja": JA, "en": EN, "python": PYTHON}
LICENCE = {"ja": "GPL-2.0-or-later", "en": "GPL-2.0-or-later", "python": "PSF-2.0"}


class ToyConfig(StageConfig):
    """Some settings for the page to show."""

    min_chars: int = 200
    language: str = ""
    seed: int = 17


EVIL = (
    "</pre></script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>"
    "<svg onload=window.pwned=1></svg>\"' onmouseover=window.pwned=1 x='{{ 7*7 }}{% raw %}"
    "</style></title></textarea><iframe src=https://evil.example></iframe><a href=javascript:window.pwned=1>x</a>"
    "\x00\u202e"
)
SECONDS = {
    "mirror/tiny": 11.4,
    "clean/tiny-ja": 6.1,
    "synth/tiny-qa-ja": 71.0,
    "synth/tiny-qa-en": 48.8,
    "synth/tiny-code": 44.1,
    "train/tiny-pretrain": 181.7,
    "train/tiny-cpt": 160.2,
    "train/tiny-sft": 38.5,
    "instruct/tiny-magpie": 66.3,
    "eval/tiny": 41.9,
    "release/tiny": 62.0,
}
Body = Callable[[Workspace, dict[str, Artifact]], None]


def make_artifact(
    store: str, stage: str, name: str, body: Body, inputs: dict[str, Artifact] | None = None, **settings: Any
) -> Artifact:
    """An artifact whose stage does whatever `body` does."""

    def run(workspace: Workspace, config: ToyConfig, inputs: dict[str, Artifact]) -> None:
        body(workspace, inputs)

    toy = Stage(name=stage, version="1", run=run, code=("tasks.records",))
    made = produce(store, toy, name, ToyConfig(**settings), inputs or {})
    # Toys are quick; a page is judged with figures like those of the real tiny factory, the same at every run.
    facts = {
        "seconds": SECONDS.get(f"{stage}/{name}", 4.2),
        "git_commit": "0123456789abcdef" * 2,
        "host": "Linux x86_64, 2 CPUs",
    }
    manifest = made.manifest.model_copy(update=facts)
    storage_for(made.url).write(join(made.url, MANIFEST), manifest.to_json())
    return Artifact(made.url, manifest)


def document(language: str, index: int, text: str | None = None) -> dict[str, Any]:
    """A row of the DOCUMENT schema."""
    texts = TEXTS[language]
    return {
        "id": f"{language}-{index:012d}",
        "text": text
        if text is not None
        else f"{texts[index % len(texts)]}\n{texts[(index + 1) % len(texts)]} ({index})",
        "url": f"file:///usr/share/doc/{language}/{index}.html",
        "source": "debian-handbook" if language != "python" else "stdlib",
        "language": language,
        "licence": LICENCE[language],
        "crawl_time": "",
        "meta": meta_json(),
    }


def documents(language: str, rows_in: int, dropped: dict[str, int], path: str, **notes: Any) -> Body:
    """A stage that keeps some rows and drops the others by reason."""

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("00000") as unit:
            kept = rows_in - sum(dropped.values())
            unit.write_parquet(path, table([document(language, i) for i in range(kept)], DOCUMENT))
            unit.count(rows_in, kept)
            for reason, count in dropped.items():
                for index in range(count):
                    unit.drop(reason, document(language, 10_000 + index))
        if notes:
            workspace.note(**notes)

    return body


def packed(kind: str, sources: list[tuple[str, str, float, int, int]]) -> Body:
    """A mixture of (name, language, weight, records, tokens)."""

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("pack") as unit:
            described = [
                {
                    "name": name,
                    "language": language,
                    "weight": weight,
                    "files": [],
                    "records": records,
                    "tokens": tokens,
                    "bytes": tokens * 3,
                    "epochs": round(weight * 1_600_000 / tokens, 2),
                }
                for name, language, weight, records, tokens in sources
            ]
            unit.write_json("mixture.json", {"kind": kind, "sources": described, "tokenizer_digest": "0" * 64})
            total = sum(source[3] for source in sources)
            unit.count(total + 3, total)
            for index in range(3):
                unit.drop("too_long", document("en", 20_000 + index))
        workspace.note(tokens=sum(source[4] for source in sources))

    return body


def trained(steps: int, start: float, end: float, lr: float) -> Body:
    """A run whose loss falls from `start` to `end` with some noise."""

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        lines: list[dict[str, Any]] = []
        for step in range(1, steps + 1):
            noise = 0.09 * math.sin(step * 12.9898) + 0.06 * math.sin(step * 78.233)
            loss = end + (start - end) * math.exp(-5 * step / steps) + noise
            warm = min(1.0, step / 20)
            lines.append(
                {
                    "step": step,
                    "loss": loss,
                    "lr": lr * warm * (1 - 0.9 * step / steps),
                    "grad_norm": 1.0,
                    "tokens": 4096 * step,
                }
            )
        timings = {"steps": steps, "tokens_per_s": 13_512.4, "data_wait_fraction": 0.0021}
        with workspace.unit("train") as unit:
            unit.write_bytes("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines).encode())
            unit.write_bytes("model/model.safetensors", b"\0" * 4096)
        spent = {"step": 100.0, "lost": 8.0 * (steps == 390), "compile": 11.0, "start_up": 6.0, "other": 2.0}
        goodput = {"seconds": spent, "launches": 1 + (steps == 390), "usd": 1.25}
        workspace.note(tokens=steps * 4096, trainer_starts=1 + (steps == 390), timings=timings, goodput=goodput)

    return body


def score(model: str, task: str, language: str, metric: str, value: float, n: int, stderr: float) -> dict[str, Any]:
    return {
        "model": model,
        "task": task,
        "language": language,
        "metric": metric,
        "value": value,
        "n": n,
        "stderr": stderr,
        "backend": "jax",
        "version": "1",
    }


SCORES = [
    *(
        score(m, "bits_per_byte", "ja", "bits_per_byte", v, 42, 0.021)
        for m, v in zip(("base", "cpt", "sft"), (2.913, 2.104, 2.131), strict=True)
    ),
    *(
        score(m, "bits_per_byte", "en", "bits_per_byte", v, 39, 0.018)
        for m, v in zip(("base", "cpt", "sft"), (2.231, 2.262, 2.297), strict=True)
    ),
    *(
        score(m, "heading_match", "ja", "accuracy", v, 120, 0.042)
        for m, v in zip(("base", "cpt", "sft"), (0.242, 0.391, 0.383), strict=True)
    ),
    *(
        score(m, "qa_generation", "en", "char_f1", v, 64, 0.019)
        for m, v in zip(("base", "cpt", "sft"), (0.081, 0.094, 0.171), strict=True)
    ),
]


def evaluated(prompts: list[tuple[str, str]]) -> Body:
    """Scores and answers of three models."""

    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        answers = [
            {"model": model, "prompt": prompt, "answer": f"{model}: {reference[: 20 + 9 * i]}", "reference": reference}
            for prompt, reference in prompts
            for i, model in enumerate(("base", "cpt", "sft"))
        ]
        with workspace.unit("scores") as unit:
            unit.write_json("scores.json", SCORES)
            lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in answers)
            unit.write_bytes("generations.jsonl", lines.encode())
            unit.count(len(SCORES), len(SCORES))

    return body


PROMPTS = [
    (
        "パッケージを更新するにはどうすればよいですか。",
        "apt update の後に apt upgrade を実行します。設定は保たれます。",
    ),
    ("What does a package manager do?", "It resolves dependencies, then unpacks and configures packages."),
    ("バックアップはどのくらい残すべきですか。", "毎日取り、一か月残すことをおすすめします。"),
]


def build(store: str) -> dict[str, Artifact]:
    """A whole factory run; returns the inputs of its report."""

    def pages(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("pages") as unit:
            unit.write_bytes("pages/00000.parquet", b"pages")
            unit.write_bytes("notices/debian-handbook.txt", b"Copyright")
            unit.count(1_321, 1_318)
            for index in range(3):
                unit.drop("unreadable", {"url": f"file:///usr/share/doc/x/{index}.html.gz", "detail": "truncated gzip"})
        sources = [
            {
                "name": "debian-handbook",
                "kind": "debian",
                "licence": "GPL-2.0-or-later",
                "attribution": "R. Hertzog, R. Mas",
            },
            {"name": "stdlib", "kind": "python", "licence": "PSF-2.0", "attribution": "Python Software Foundation"},
        ]
        workspace.note(licences=["GPL-2.0-or-later", "PSF-2.0"], sources=sources)

    def teacher_files(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("model") as unit:
            unit.write_bytes("model/model.safetensors", b"\0" * 2048)
        workspace.note(licences=["Apache-2.0"], teachers=["SmolLM2-135M-Instruct"])

    def chats(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("0") as unit:
            rows = [
                {
                    "id": f"c{i}",
                    "messages": json.dumps(
                        [{"role": "user", "content": EN[i % 5][:40] + "?"}, {"role": "assistant", "content": EN[i % 5]}]
                    ),
                    "language": "en",
                    "source": "magpie",
                    "teacher": "SmolLM2-135M-Instruct",
                    "licence": "Apache-2.0",
                    "meta": "{}",
                }
                for i in range(96)
            ]
            unit.write_parquet("train/00000.parquet", table(rows, CHAT))
            unit.count(240, 96)
            for reason, count in {"repeats_itself": 71, "wrong_language": 48, "cut_short": 25}.items():
                for i in range(count):
                    unit.drop(reason, {"prompt": f"Question {reason} {i}?", "answer": "and and and " * 8})
        workspace.note(tokens=38_112)

    def released(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("release") as unit:
            for name in ("config.json", "README.md", "model.safetensors"):
                unit.write_bytes(f"Nestling-Tiny-JA/{name}", b"{}")
            path = {
                "version": "1.0",
                "prompts": 8,
                "tokens": 24,
                "ties": 0,
                "max_logprob_difference": 3.1e-6,
                "allowed": 1e-3,
            }
            unit.write_json("proof.json", {"paths": [path | {"path": "transformers"}, path | {"path": "vLLM"}]})

    def tokens(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("tokenizer") as unit:
            unit.write_bytes("tokenizer.model", b"spm")

    mirror = make_artifact(store, "mirror", "tiny", pages)
    drops = {
        "ja": {"too_short": 148, "low_hiragana": 39, "wrong_language": 27, "repeated_lines": 12, "ng_words": 4},
        "en": {"too_short": 181, "wrong_language": 33, "symbols": 21, "repeated_lines": 9},
        "python": {"syntax_error": 6, "generated_file": 11, "too_long": 2},
    }
    rows = {"ja": 488, "en": 530, "python": 300}
    twins = {
        "ja": {"exact_duplicate": 22, "near_duplicate": 31},
        "en": {"exact_duplicate": 17, "near_duplicate": 24},
        "python": {"near_duplicate": 8},
    }
    clean = {
        code: make_artifact(
            store,
            "clean",
            f"tiny-{code}",
            documents(code, rows[code], drops[code], "docs/00000.parquet"),
            {"mirror": mirror},
            language=code,
        )
        for code in rows
    }
    dedup = {
        code: make_artifact(
            store,
            "dedup",
            f"tiny-{code}",
            documents(code, rows[code] - sum(drops[code].values()), twins[code], "train/00000.parquet"),
            {"clean": clean[code]},
            language=code,
        )
        for code in rows
    }
    teacher = make_artifact(store, "teacher", "smollm2-135m", teacher_files)
    synth = {
        recipe: make_artifact(
            store,
            "synth",
            f"tiny-{recipe}",
            documents(code, count, gates, "docs/00000.parquet", tokens=count * 140),
            {"documents": dedup[code], "teacher": teacher},
            language=code,
        )
        for recipe, code, count, gates in (
            ("qa-ja", "ja", 180, {"not_in_document": 61, "no_answer": 32, "wrong_language": 21}),
            ("qa-en", "en", 180, {"not_in_document": 44, "no_answer": 18}),
            ("code", "python", 120, {"does_not_parse": 49, "unchanged": 20}),
        )
    }
    tokenizer = make_artifact(
        store, "tokenizer", "tiny", tokens, {f"documents.{i}": dedup[c] for i, c in enumerate(("ja", "en"))}
    )
    base_pack = make_artifact(
        store,
        "pack",
        "tiny-pretrain",
        packed("text", [("web-en", "en", 1.0, 250, 402_118)]),
        {"documents.0": dedup["en"], "tokenizer": tokenizer},
    )
    cpt_pack = make_artifact(
        store,
        "pack",
        "tiny-cpt",
        packed(
            "text",
            [
                ("web-ja", "ja", 0.62, 205, 398_772),
                ("web-en", "en", 0.2, 250, 402_118),
                ("stdlib", "python", 0.08, 270, 611_090),
                ("synth/qa-ja", "ja", 0.05, 66, 9_240),
                ("synth/qa-en", "en", 0.03, 118, 16_520),
                ("synth/code", "python", 0.02, 51, 7_140),
            ],
        ),
        {**{f"documents.{i}": a for i, a in enumerate([*dedup.values(), *synth.values()])}, "tokenizer": tokenizer},
    )
    base = make_artifact(store, "train", "tiny-pretrain", trained(420, 9.0, 4.6, 2e-3), {"data": base_pack})
    cpt = make_artifact(store, "train", "tiny-cpt", trained(390, 6.1, 3.9, 1e-3), {"data": cpt_pack, "model": base})
    instruct = make_artifact(store, "instruct", "tiny-magpie", chats, {"teacher": teacher})
    sft_pack = make_artifact(
        store,
        "pack",
        "tiny-sft",
        packed("chat", [("magpie", "en", 1.0, 96, 38_112)]),
        {"chats": instruct, "tokenizer": tokenizer},
    )
    sft = make_artifact(store, "train", "tiny-sft", trained(60, 4.4, 3.4, 5e-4), {"data": sft_pack, "model": cpt})
    scores = make_artifact(
        store, "eval", "tiny", evaluated(PROMPTS), {"base": base, "cpt": cpt, "sft": sft, "heldout": cpt_pack}
    )
    release = make_artifact(store, "release", "tiny", released, {"model": sft, "evaluation": scores})
    return {"release": release, "evaluation": scores}


@pytest.fixture(scope="session")
def factory_inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """The inputs of a report on a whole toy run."""
    return build(str(tmp_path_factory.mktemp("store")))


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def make() -> Callable[..., Artifact]:
    """(store, stage, name, body, inputs, **settings) -> an artifact whose stage does whatever `body` does."""
    return make_artifact


@pytest.fixture(name="build")
def build_fixture() -> Callable[[str], dict[str, Artifact]]:
    """store -> the inputs of a report on a whole toy run."""
    return build


@pytest.fixture(scope="session")
def evil() -> str:
    """Words that try to become markup, script, template or direction."""
    return EVIL


@pytest.fixture
def hostile(store: str, make: Callable[..., Artifact]) -> dict[str, Artifact]:
    """A run in which every word from outside is an attack."""

    def clean(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        row = dict.fromkeys(DOCUMENT.names, EVIL) | {"language": "ja"}
        with workspace.unit("0") as unit:
            unit.write_parquet("docs/0.parquet", table([row | {"id": "1"}, row | {"language": EVIL}], DOCUMENT))
            unit.count(3, 2)
            unit.drop(EVIL, row)
        workspace.note(teachers=[EVIL], licences=[EVIL], versions={EVIL: EVIL}, anything=EVIL)
        workspace.note(sources=[{"name": EVIL, "licence": EVIL, "attribution": EVIL}, EVIL])

    def scores(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        score = {
            "task": EVIL,
            "language": EVIL,
            "metric": "bits_per_byte",
            "value": 1.0,
            "version": EVIL,
            "backend": EVIL,
        }
        with workspace.unit("0") as unit:
            unit.write_json("scores.json", [score | {"model": "base"}, score | {"model": EVIL}])
            lines = [{"model": m, "prompt": EVIL, "answer": EVIL, "reference": EVIL} for m in ("base", EVIL)]
            unit.write_bytes("generations.jsonl", "\n".join(map(json.dumps, lines)).encode())
            source = {"name": EVIL, "language": EVIL, "weight": 1.0, "tokens": 5, "records": 1, "epochs": 1}
            phase = {"name": EVIL, "sources": {EVIL: {"wanted_tokens": 7, "budget_tokens": 5}}}
            unit.write_json("mixture.json", {"kind": EVIL, "sources": [source], "phases": [phase]})
            unit.write_bytes("metrics.jsonl", b'{"step": 1, "loss": 2.0}\n')
            unit.write_json(
                "proof.json", {"paths": [{"path": EVIL, "version": EVIL, "prompts": EVIL, "allowed": EVIL}, EVIL]}
            )

    synth = make(store, "synth", "evil", clean, language="ja")
    return {"evaluation": make(store, "eval", "evil", scores, {"documents": synth})}


@pytest.fixture
def hostile_html(hostile: dict[str, Artifact]) -> str:
    """The page about the hostile run."""
    return render(ReportConfig(title=EVIL[:120], warnings=(EVIL,), before="base", after=EVIL), hostile)
