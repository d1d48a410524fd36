"""Every benchmark ends with one JSON line that says what was compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.convert import large
from bench.harness import ROOT, alternate, publish

SHARED = ROOT.parent / "shared" / "data" / "corpus-ja"
BENCHES = {
    "clean": ["--rounds", "1", "--megabytes", "8"],
    "corpus": ["--rounds", "1", "--megabytes", "8"],
    "convert": ["--rounds", "1", "--embed-dim", "256", "--layers", "2", "--skip-27b"],
    "feed": ["--rounds", "1", "--megabytes", "2", "--wait-steps", "3"],
    "artifact": ["--rounds", "1", "--units", "4", "--unit-mb", "1", "--small-units", "10"],
    "checkpoint": ["--rounds", "1", "--model", "gemma2/tiny", "--rows", "2"],
    "train_step": ["--rounds", "1", "--steps", "2", "--models", "gemma2/tiny", "--peers", "eager"],
}


def test_engines_alternate():
    called: list[str] = []
    results = alternate({"a": lambda: called.append("a") or 1, "b": lambda: called.append("b") or 2}, 3)
    assert called == ["a", "b"] * 3
    assert results == {"a": [1, 1, 1], "b": [2, 2, 2]}


def test_the_ratio_is_against_the_best_peer_and_of_medians(capsys):
    publish("x", "MB/s", [1, 4, 100], {"slow": [1, 1, 1], "fast": [5, 8, 9]}, note="n")
    line = json.loads(capsys.readouterr().out)
    assert (line["ours"], line["peers"], line["ratio"]) == (4, {"slow": 1, "fast": 8}, 0.5)
    assert line["ours_range"] == [1, 100]
    assert line["note"] == "n"
    assert line["machine"]


def test_every_bench_is_listed_in_the_readme_and_tested_here():
    names = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"harness"}
    assert names - {"preflight"} == set(BENCHES)  # preflight: tests/tasks/preflight/test_compiler.py, in an hour
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in readme for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_prints_one_json_line(name):
    if name in ("clean", "corpus", "feed") and not SHARED.is_dir():
        pytest.skip(f"needs Japanese text; {SHARED} is not here")
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *BENCHES[name]], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    if "could not be installed" in done.stderr:
        pytest.skip(f"the peer cannot be installed here: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr[-2000:]
    (text,) = done.stdout.splitlines()
    line = json.loads(text)
    assert line["bench"] == name
    assert line["ours"] > 0
    assert all(value > 0 for value in line["peers"].values())
    assert line["ratio"] == pytest.approx(line["ours"] / max(line["peers"].values()), rel=0.01)


def test_clean_without_text_says_what_to_give(tmp_path, monkeypatch):
    from bench import clean

    monkeypatch.setattr(clean, "peer_python", lambda *packages: Path(sys.executable))
    with pytest.raises(SystemExit, match="Give a JSONL file"):
        clean.main(["--docs", str(tmp_path / "nothing.jsonl")])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_checkpoint_of_27b_goes_through_less_than_six_gib(tmp_path):
    """54 GB from disk to disk with every byte the same, and the parts of 4 chips of 256."""
    found = large(tmp_path / "27b")
    assert found["gigabytes"] == pytest.approx(54.5, abs=0.1)
    assert found["shards"] > 10
    assert found["disk_to_disk"]["peak_rss_gib"] < 6
    assert found["parts_of_4_of_256"]["peak_rss_gib"] < 6
    assert found["parts_of_4_of_256"]["held_gib"] == pytest.approx(4 * 4 * 27.227e9 / 256 / 2**30, rel=0.01)


def test_speeds_of_different_work_are_not_published():
    from bench.train_step import LARGEST_DIFFERENCE, _require_equal_losses

    _require_equal_losses({"ours": [9.0, 8.0], "eager": [9.0, 8.0 + 0.9 * LARGEST_DIFFERENCE]})
    with pytest.raises(SystemExit, match="ours and eager differ"):
        _require_equal_losses({"ours": [9.0, 8.0], "eager": [9.0, 8.0 + 1.1 * LARGEST_DIFFERENCE]})
    with pytest.raises(SystemExit, match="ours and eager differ"):
        _require_equal_losses({"ours": [9.0, 8.0], "eager": [9.0, float("nan")]})
