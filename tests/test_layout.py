"""The shape of the repository: what style.md section 3 promises a reader."""

import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CODE = ("flows", "tasks", "model")


@pytest.mark.parametrize("package", CODE)
def test_packages_load_from_this_clone(package):
    assert Path(str(import_module(package).__file__)).parent == ROOT / package


def test_deployments_hold_data_and_no_code():
    assert list((ROOT / "deployments").rglob("*.py")) == []


def test_no_module_has_a_name_that_says_nothing():
    names = {path.stem for package in CODE for path in (ROOT / package).rglob("*.py")}
    assert names & {"utils", "util", "common", "helpers", "misc", "core"} == set()


def test_tests_have_no_init_files_that_would_shadow_the_packages():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_stage_folder_has_a_page():
    stages = {path.parent.name for path in (ROOT / "tasks").glob("*/task.py")} - {"progress"}
    pages = {path.stem for path in (ROOT / "docs" / "stages").glob("*.md")}
    assert stages <= pages


def test_nothing_in_the_product_reads_the_shared_folder_or_names_a_registry_host():
    found = [
        str(path.relative_to(ROOT))
        for package in (*CODE, "deployments", "requirements")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and path.suffix in {".py", ".yaml", ".json", ".txt", ".in", ".sh"}
        if re.search(r"\.\./shared|/work/|pypi\.org|registry\.npmjs|deb\.debian\.org", path.read_text(errors="replace"))
    ]
    assert found == []


def test_make_refuses_an_interpreter_that_does_not_run_rather_than_testing_another():
    done = subprocess.run(["make", "-n", "install", "PY=python3.99"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "PY=python3.99 does not run here" in done.stderr


@pytest.mark.parametrize("lock", ["base", "dev"])
def test_one_lock_pins_a_jax_for_each_side_of_python_3_12(lock):
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split(" ; python_full_version ") for line in lines if line.startswith("jax=="))
    assert sorted(condition[:2].strip() for condition in pins.values()) == ["<", ">="]
    assert {condition.split("'")[1] for condition in pins.values()} == {"3.12"}
