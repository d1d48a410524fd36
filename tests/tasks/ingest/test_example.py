"""The example that shows what a filter drops runs as its first lines say."""

import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq

from tasks.records import DOCUMENT, table

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "filter_one_shard.py"


def run(*arguments: str) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_arguments_it_judges_the_standard_library():
    shown = run("--show", "3")
    assert "kept" in shown
    assert shown.count("python:") == 3


def test_a_threshold_can_be_tried_on_a_shard(tmp_path):
    fixed = {"source": "s", "language": "ja", "licence": "MIT", "crawl_time": "", "meta": "{}"}
    rows = [{"id": str(i), "url": f"u{i}", "text": "あ" * (100 * i)} | fixed for i in range(1, 5)]
    pq.write_table(table(rows, DOCUMENT), tmp_path / "x.parquet")
    shown = run(str(tmp_path / "x.parquet"), "--filters", "length", "--set", "min_chars=250")
    assert "2  kept" in shown
    assert "2  too_short" in shown
