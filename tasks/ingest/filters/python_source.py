"""Drops Python files that do not parse, are data rather than code, or are commented in another language."""

import ast
import contextlib
import io
import re
import tokenize
import warnings

from pydantic import Field

from tasks.config import StageConfig
from tasks.ingest.text import Text

TABLE_LINES = 20  # a longer display of constants is a table
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


def judge(text: Text, rules: PythonRules) -> str | None:
    """The first of six reasons. Source of the syntax rule: SwallowCode (Fujii et al. 2025)."""
    lines = text.raw.split("\n")
    if max(map(len, lines)) > rules.max_line_chars:
        return "long_line"
    if sum(map(len, lines)) > rules.max_mean_line_chars * len(lines):
        return "long_lines"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes and the like: warnings of the corpus, not ours
            tree = ast.parse(text.raw)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "syntax_error"
    nodes = list(ast.walk(tree))
    if sum(isinstance(node, ast.stmt) for node in nodes) < rules.min_code_nodes:
        return "few_statements"
    if _literal_chars(nodes, lines) > rules.max_literal_fraction * len(text):
        return "mostly_data"
    if text.raw.isascii():
        return None
    letters = [letter for letter in _prose(text.raw, nodes) if letter.isalpha()]
    readable = sum(_READABLE.match(letter) is not None for letter in letters)
    return "comment_language" if readable < rules.min_readable_comments * len(letters) else None


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
