"""Drops Python files of poor style: a score of ten like pylint's, from the findings of ruff, less for many comments."""

import ast
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tokenize
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.errors import HostFault
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts

# The rules that pylint has, too, without those that it leaves off by default, and those that SwallowCode switched off:
# imports, docstrings, the length of lines, names, the order of imports, small classes, to-dos.
SELECT = "E,F,W,PL,B006,B018,B904"
IGNORE = "E501,E741,F405,PLC0415,PLC1901,PLR0904,PLR2004,PLR5501,PLW1514,PLW2901"
ERRORS = ("E9", "F82", "F70", "F63", "PLE", "invalid-syntax")  # what pylint would call an error: they count five times
SECONDS = 300


class CodeStyleRules(StageConfig):
    """SwallowCode's second stage in spirit; the findings are those of ruff (MIT), not of pylint."""

    min_score: float = Field(default=7.0, le=10, description="Lowest score of ten (SwallowCode: pylint 7).")
    ruff_version: str = Field(default="0.17", description="Release of ruff whose rules count; another is refused.")


def measure(texts: Texts, rules: CodeStyleRules) -> dict[str, np.ndarray]:
    """The score: (10 - 10 * (5 * errors + other findings) / statements) * (1 - share of comments among the tokens).

    Both formulas are those of SwallowCode (Fujii et al. 2025): pylint's evaluation and the penalty for comments. NaN
    for a file that does not parse or has no statement, 0 for one on which ruff fails.

    Raises:
        HostFault: there is no ruff, or one of another release.
    """
    ruff = _ruff(rules.ruff_version)
    statements = [_statements(source) for source in texts.strings]
    judged = [index for index, number in enumerate(statements) if number]  # what Python cannot parse can crash ruff
    scores = np.full(len(texts), np.nan)
    for index, codes in zip(judged, _findings(ruff, [texts.strings[index] for index in judged]), strict=True):
        scores[index] = _score(texts.strings[index], statements[index], codes)
    return {"score": scores}


def limits(rules: CodeStyleRules) -> tuple[Limit, ...]:
    return (Limit("poor_style", "score", "below", rules.min_score),)


def _statements(source: str) -> int:
    """Statements of a file; 0 for one that does not parse."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the corpus, not ours
            return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0


def _score(source: str, statements: int, codes: Sequence[str] | None) -> float:
    if codes is None:
        return 0.0
    errors = sum(code.startswith(ERRORS) for code in codes)
    return (10 - 10 * (4 * errors + len(codes)) / statements) * (1 - comment_share(source))


def comment_share(source: str) -> float:
    """Comments among the tokens of a file; 0 where the tokenizer gives up."""
    try:
        kinds = [token.type for token in tokenize.generate_tokens(io.StringIO(source).readline)]
    except (tokenize.TokenError, SyntaxError):
        return 0.0
    return kinds.count(tokenize.COMMENT) / len(kinds)


def _findings(ruff: str, sources: Sequence[str]) -> list[list[str] | None]:
    """The codes of ruff's findings in each file; None for a file on which it fails. Comments do not silence it."""
    if not sources:
        return []
    try:
        return list(_check(ruff, sources))
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        if len(sources) == 1:
            return [None]
        half = len(sources) // 2
        return _findings(ruff, sources[:half]) + _findings(ruff, sources[half:])


def _check(ruff: str, sources: Sequence[str]) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in sources]
    with tempfile.TemporaryDirectory() as folder:
        for index, source in enumerate(sources):
            Path(folder, f"{index}.py").write_bytes(source.encode("utf-8", "surrogatepass"))
        command = [ruff, "check", "--isolated", "--no-cache", "--exit-zero", "--ignore-noqa", "--output-format=json"]
        command += ["--target-version=py312", f"--select={SELECT}", f"--ignore={IGNORE}", "--quiet", folder]
        alone = os.environ | {"RAYON_NUM_THREADS": "1"}  # a worker has one core
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True, env=alone)
    for finding in json.loads(done.stdout):
        found[int(Path(finding["filename"]).stem)].append(finding["code"] or "invalid-syntax")
    return found


def _ruff(release: str) -> str:
    """The ruff of this environment."""
    path = shutil.which("ruff", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout if path else "none"
    version = said.split()[-1]
    if path is None or version.split(".")[: release.count(".") + 1] != release.split("."):
        raise HostFault(
            f"ruff {version} is here, ruff_version is {release}: scores of two releases differ, so the same files "
            "would be kept on one machine and dropped on another. "
            f"Run: pip install 'ruff=={release}.*', or set ruff_version."
        )
    return path
