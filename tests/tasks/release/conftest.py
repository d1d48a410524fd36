"""A whole lineage of stand-in artifacts around a real tiny model."""

import json

import pytest

from tests.tasks import tiny_model
from tests.tasks.artifacts import artifact

MIXTURE = {
    "kind": "text",
    "sources": [
        {"name": "ja", "language": "ja", "weight": 0.75, "records": 30, "tokens": 3000, "bytes": 9000, "epochs": 1.5},
        {
            "name": "synth|x",
            "language": "en",
            "weight": 0.25,
            "records": 10,
            "tokens": 1000,
            "bytes": 4000,
            "epochs": 1.0,
        },
    ],
}


def scores() -> list[dict[str, object]]:
    made: list[dict[str, object]] = []
    for model, ja, en in (("base", 3.0, 1.5), ("cpt", 2.0, 1.56), ("sft", 2.1, 1.6)):
        for language, value in (("ja", ja), ("en", en)):
            made.append(
                {
                    "model": model,
                    "task": "bits_per_byte",
                    "language": language,
                    "metric": "bits_per_byte",
                    "value": value,
                    "n": 24,
                    "stderr": 0.05,
                    "higher_is_better": False,
                    "backend": "jax",
                    "dtype": "float32",
                    "context_tokens": 512,
                    "batch_tokens": 4096,
                    "versions": {"jax": "0.10.2"},
                }
            )
    made.append(
        {
            "model": "sft",
            "task": "continuation",
            "language": "ja",
            "metric": "accuracy",
            "value": 0.5,
            "n": 48,
            "stderr": 0.07,
            "chance": 0.25,
            "higher_is_better": True,
        }
    )
    return made


@pytest.fixture(scope="session")
def model_files(tmp_path_factory):
    directory = tiny_model.write(tmp_path_factory.mktemp("release") / "model")
    return {f"model/{path.name}": path for path in directory.iterdir()}


def build(
    root,
    model_files,
    *,
    mirror_licences=("GPL-2.0-or-later",),
    teacher_licences=("Apache-2.0",),
    notices=True,
    teacher_files=None,
):
    """mirror -> clean -> dedup, teacher -> synth, pack -> train, and an evaluation; returns the inputs of a release."""
    store = root / "store"
    notice = {"notices/debian.txt": b"Copyright (C) 2023 Osamu Aoki"} if notices else {}
    sources = [
        {"name": "debian", "kind": "debian", "licence": licence, "attribution": "The Debian authors"}
        for licence in mirror_licences
    ]
    mirror = artifact(
        store, "mirror", "ja", {**notice, "pages/0.bin": b"x"}, notes={"licences": mirror_licences, "sources": sources}
    )
    clean = artifact(
        store, "clean", "ja", {"d.bin": b"1"}, parents={"pages": mirror}, drops={"short_lines": 3, "not_japanese": 5}
    )
    dedup = artifact(store, "dedup", "ja", {"d.bin": b"2"}, parents={"documents": clean})
    found = {"items": 70, "too_short": 3, "common": 2, "rows": 1234, "items_found": 12}
    found |= {"rules": {"13 words": 34, "25 characters": 1200}, "sources": {"debian": 1234}}
    clear = artifact(
        store,
        "decontaminate",
        "ja",
        {"d.bin": b"2c"},
        parents={"docs": dedup},
        drops={"contaminated:jsquad": 4},
        notes={"benchmarks": {"jsquad": found}},
    )
    teacher = artifact(
        store,
        "teacher",
        "smol",
        {"model/x": b"x", **(teacher_files or {})},
        notes={"licences": teacher_licences, "teachers": ["SmolLM2-135M-Instruct"]},
    )
    synth = artifact(store, "synth", "qa-en", {"d.bin": b"3"}, parents={"teacher": teacher}, drops={"too_short": 7})
    pack = artifact(
        store,
        "pack",
        "cpt",
        {"mixture.json": json.dumps(MIXTURE).encode()},
        parents={"documents.0": clear, "documents.1": synth},
    )
    train = artifact(
        store,
        "train",
        "tiny-cpt",
        model_files,
        parents={"data": pack},
        facts={"model": "gemma2/tiny", "batch_tokens": 8192, "peak_lr": 0.002, "schedule": "cosine"},
        notes={"tokens": 1_400_832, "final_loss": 2.34567},
    )
    evaluation = artifact(store, "eval", "tiny", {"scores.json": json.dumps(scores()).encode()}, parents={"m": train})
    return {"model": train, "eval": evaluation}


@pytest.fixture
def world(tmp_path, model_files):
    return build(tmp_path, model_files)
