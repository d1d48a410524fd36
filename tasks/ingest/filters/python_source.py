"""Drops Python files that do not parse, are data rather than code, or are commented in another language."""

import ast
import contextlib
import io
import math
import re
import tokenize
import warnings

import numpy as np
from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit
from tasks.ingest.texts import Texts

TABLE_LINES = 20  # a longer display of constants is a table
_COLUMNS = ("longest_line_chars", "mean_line_chars", "parses", "statements", "literal_fraction", "readable_comments")
_DISPLAYS = (ast.List, ast.Tuple, ast.Set, ast.Dict)
_READABLE = re.compile("[A-Za-z\u3041-\u3096\u30a1-\u30fa\u30fc\u4e00-\u9fff]")


class PythonRules(StageConfig):
    """Syntax as in SwallowCode's first stage; the sizes are those of The Stack's usual filters."""

    max_mean_line_chars: float = Field(default=100, ge=1, description="Longest mean line (The Stack: 100).")
    max_line_chars: int = Field(default=1000, ge=1, description="Longest line (The Stack: 1,000).")
    min_code_nodes: int = Field(default=10, ge=0, description="Fewest statements and definitions in a file.")
    max_literal_fraction: float = Field(
        default=0.5, ge=0, le=1, description="Share of characters in tables of literals; more is data, not code."
    )
    min_readable_comments: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of the letters in comments and docstrings that are ASCII or Japanese.",
    )


def measure(texts: Texts, rules: PythonRules) -> dict[str, np.ndarray]:
    """Lines, syntax, statements, tables and comments of each file; the last three only of one that parses.

    Source of the syntax rule: SwallowCode (Fujii et al. 2025).
    """
    rows = np.array([_facts(source) for source in texts.strings], float).reshape(-1, len(_COLUMNS))
    return dict(zip(_COLUMNS, rows.T, strict=True))


def limits(rules: PythonRules) -> tuple[Limit, ...]:
    return (
        Limit("long_line", "longest_line_chars", "above", rules.max_line_chars),
        Limit("long_lines", "mean_line_chars", "above", rules.max_mean_line_chars),
        Limit("syntax_error", "parses", "below", 1),
        Limit("few_statements", "statements", "below", rules.min_code_nodes),
        Limit("mostly_data", "literal_fraction", "above", rules.max_literal_fraction),
        Limit("comment_language", "readable_comments", "below", rules.min_readable_comments),
    )


def _facts(source: str) -> tuple[float, ...]:
    """The columns of one file; NaN for what only a file that parses has, and for letters of no comments."""
    lines = source.split("\n")
    longest, mean = max(map(len, lines)), sum(map(len, lines)) / len(lines)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like: warnings of the corpus, not ours
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return longest, mean, 0, math.nan, math.nan, math.nan
    nodes = list(ast.walk(tree))
    statements = sum(isinstance(node, ast.stmt) for node in nodes)
    literal = _literal_chars(nodes, lines) / len(source) if source else math.nan
    letters = [] if source.isascii() else [letter for letter in _prose(source, nodes) if letter.isalpha()]
    readable = sum(_READABLE.match(letter) is not None for letter in letters)
    return longest, mean, 1, statements, literal, readable / len(letters) if letters else math.nan


def _literal_chars(nodes: list[ast.AST], lines: list[str]) -> int:
    """Characters of the lines of displays of constants that span more than TABLE_LINES lines."""
    spans: set[int] = set()
    for node in nodes:
        if isinstance(node, _DISPLAYS):
            first, last = node.lineno, node.end_lineno or node.lineno
            if last - first >= TABLE_LINES and first not in spans and _is_constant(node):
                spans.update(range(first, last + 1))
    return sum(len(lines[number - 1]) + 1 for number in spans)


def _is_constant(node: ast.AST) -> bool:
    parts = (part for part in ast.walk(node) if isinstance(part, ast.expr))
    return all(isinstance(part, (ast.Constant, ast.UnaryOp, *_DISPLAYS)) for part in parts)


def _prose(source: str, nodes: list[ast.AST]) -> str:
    """All comments and docstrings of a file that parses."""
    found: list[str] = []
    with contextlib.suppress(tokenize.TokenError, IndentationError):  # the parser takes more than the tokenizer
        tokens = tokenize.generate_tokens(io.StringIO(source).readline)
        found += [token.string for token in tokens if token.type == tokenize.COMMENT]
    for node in nodes:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.append(ast.get_docstring(node, clean=False) or "")
    return "".join(found)
