"""Fingerprints and code digests."""

from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.artifact.identity import canonical_json, code_digest, fingerprint
from tasks.config import StageConfig, input_field, operational_field

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
configs = st.dictionaries(st.text(min_size=1), values, min_size=1, max_size=5)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


def of(config: dict[str, Any]) -> str:
    return fingerprint("stage", "1", config, {"docs": "abc"})


@given(configs)
def test_the_order_of_keys_changes_nothing(config: dict[str, Any]):
    assert of(config) == of(shuffled(config))


@given(configs, st.data())
def test_any_other_value_of_any_field_is_another_fingerprint(config: dict[str, Any], data: st.DataObject):
    key = data.draw(st.sampled_from(sorted(config)))
    other = data.draw(values.filter(lambda value: canonical_json(value) != canonical_json(config[key])))
    assert of(config) != of(config | {key: other})
    assert of(config) != of({k: v for k, v in config.items() if k != key})


def test_stage_version_parents_and_their_roles_are_part_of_the_identity():
    base = ("stage", "1", {"a": 1}, {"docs": "abc"})
    variants = [
        ("other", "1", {"a": 1}, {"docs": "abc"}),
        ("stage", "2", {"a": 1}, {"docs": "abc"}),
        ("stage", "1", {"a": 1}, {"docs": "xyz"}),
        ("stage", "1", {"a": 1}, {"pages": "abc"}),
        ("stage", "1", {"a": 1}, {}),
        ("stage", "1", {"a": 1.5}, {"docs": "abc"}),
    ]
    assert len({fingerprint(*variant) for variant in [base, *variants]}) == len(variants) + 1


class Inner(StageConfig):
    threshold: float = 0.5
    threads: int = operational_field("Threads.", default=1)


class Outer(StageConfig):
    min_chars: int = 100
    docs: str = input_field("Documents.", default="ingest/tiny")
    inner: Inner = Inner()
    workers: int = operational_field("Workers.", default=2)
    log_level: str = operational_field("Verbosity.", default="info")


@given(workers=st.integers(), threads=st.integers(), log_level=st.text(), docs=st.text(), chars=st.integers(0, 10**6))
def test_where_and_how_a_stage_runs_never_enters_the_identity(
    workers: int, threads: int, log_level: str, docs: str, chars: int
):
    config = Outer(workers=workers, inner=Inner(threads=threads), log_level=log_level, docs=docs)
    assert of(config.semantic()) == of(Outer().semantic())
    changed = config.with_changes({"min_chars": chars})
    assert (of(changed.semantic()) == of(Outer().semantic())) == (chars == 100)
    assert of(config.with_changes({"inner.threshold": 0.25}).semantic()) != of(Outer().semantic())


class Colour(Enum):
    RED = "red"


def test_enums_paths_tuples_and_sets_have_one_form():
    assert canonical_json({"c": Colour.RED, "p": Path("a/b"), "t": (1, 2), "s": {"y", "x"}}) == (
        '{"c":"red","p":"a/b","s":["x","y"],"t":[1,2]}'
    )


def test_a_value_without_a_form_is_refused():
    with pytest.raises(TypeError, match="has no JSON form"):
        canonical_json({"f": object()})
    with pytest.raises(ValueError, match="JSON compliant"):
        canonical_json({"f": float("nan")})


RULES = '"""Rules."""\n\n\ndef keep(n):\n    """Whether to keep."""\n    return n > 3  # three\n'


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "watched"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "rules.py").write_text(
        '"""Rules."""\n\n\ndef keep(n):\n    """Whether to keep."""\n    return n > 3  # three\n'
    )
    (folder / "prompt.txt").write_text("Answer in one sentence.")
    (folder / "task.py").write_text("import prefect\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


REWRITES = [
    pytest.param("rules.py", "def keep(n):\n\n    return (n   >  3)\n", True, id="comments, docstrings and layout"),
    pytest.param("rules.py", "def keep(n):\n    return n > 4\n", False, id="a constant"),
    pytest.param("rules.py", "def keep(n):\n    return n >= 3\n", False, id="an operator"),
    pytest.param("rules.py", 'def keep(n):\n    x = "Rules."\n    return n > 3\n', False, id="a string that is used"),
    pytest.param("prompt.txt", "Answer in two sentences.", False, id="a prompt text"),
    pytest.param("task.py", "import prefect, sys\n", True, id="the Prefect wrapper"),
    pytest.param("more.py", "X = 1\n", False, id="a new file"),
]


@pytest.mark.parametrize(("name", "text", "same"), REWRITES)
def test_the_code_digest_changes_with_meaning_only(package: Path, name: str, text: str, same: bool):
    before = code_digest(("watched",))
    (package / name).write_text(text)
    assert (code_digest(("watched",)) == before) is same


def test_a_single_module_is_watched_alone(package: Path):
    before = code_digest(("watched.rules",))
    (package / "prompt.txt").write_text("other")
    assert code_digest(("watched.rules",)) == before


def test_a_module_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="not a module that can be found"):
        code_digest(("tasks.no_such_module",))
    with pytest.raises(ValueError, match="not a module that can be found"):
        code_digest(("no_such_package.module",))
