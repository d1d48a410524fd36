"""The command line: one screen for every mistake, typed exit codes, nothing started by a wrong call."""

import json

import pytest

from flows.__main__ import main, parse_changes
from tasks.errors import ConfigError


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NESTLING_STORE", str(tmp_path / "store"))


def call(capsys, *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        pytest.param(("cpt", "huge"), ("preset='huge'", "tiny, 2b, 9b, 27b"), id="unknown preset"),
        pytest.param(
            ("cpt", "tiny", "--set", "peek_lr=1"), ("'peek_lr'", "Did you mean peak_lr?", "Correct"), id="unknown key"
        ),
        pytest.param(
            ("ingest", "tiny", "--set", "corpora.ja.clean.filters.length.min_char=9"),
            ("corpora.ja.clean.filters.length: 'min_char'", "Did you mean min_chars or max_chars?"),
            id="unknown key in a group",
        ),
        pytest.param(("ingest", "tiny", "--set", 'only=["jp"]'), ("no corpus but ja, en, python",), id="no corpus"),
        pytest.param(("cpt", "tiny", "--set", "peak_lr=fast"), ("peak_lr = 'fast'", "number"), id="wrong type"),
        pytest.param(("cpt", "tiny", "--set", "peak_lr"), ("needs KEY=VALUE",), id="no value"),
        pytest.param(
            ("cpt", "tiny", "--set", "seq_len=500"), ("batch_tokens=4,096", "multiple"), id="cross-field rule"
        ),
        pytest.param(("cpt", "27b"), ("needs tpu v6e-256", "`tiny`"), id="no accelerator"),
        pytest.param(("cpt", "tiny", "--set", "data=pack/tiny:nothing"), ("no output 'nothing'",), id="no such output"),
        pytest.param(("lineage", "release/tiny"), ("not finished", "nestling release tiny"), id="not made yet"),
    ],
)
def test_a_mistake_is_one_screen_with_exit_78_and_nothing_is_written(capsys, tmp_path, argv, parts):
    code, _, err = call(capsys, *argv)
    assert code == 78
    for part in parts:
        assert part in err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 20
    assert not (tmp_path / "store").exists()


def test_plan_of_an_empty_store_runs_the_roots_and_everything_else_waits(capsys):
    code, out, _ = call(capsys, "plan", "factory", "tiny", "--json")
    assert code == 0
    states = {item["step"]: item["state"] for item in json.loads(out)}
    assert states["mirror/tiny-ja"] == "run"
    assert states["report/factory-tiny"] == "wait"
    assert set(states.values()) == {"run", "wait"}


def test_changes_reach_other_presets_and_nested_knobs():
    pairs = ["peak_lr=0.1", "ingest/tiny.corpora.ja.dedup.min_jaccard=0.9", "model=gemma2/tiny"]
    assert parse_changes("cpt", "tiny", pairs) == {
        ("cpt", "tiny"): {"peak_lr": 0.1, "model": "gemma2/tiny"},
        ("ingest", "tiny"): {"corpora.ja.dedup.min_jaccard": 0.9},
    }


def test_a_pair_without_a_value_is_refused():
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_changes("cpt", "tiny", ["peak_lr"])


def test_gc_keeps_by_default(capsys, tmp_path):
    (tmp_path / "store").mkdir()
    code, out, _ = call(capsys, "gc")
    assert code == 0
    assert out.strip()
