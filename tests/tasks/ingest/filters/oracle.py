"""The rules again, one text at a time and slowly, from the words of the papers: what the batch-wise ones are tested by.

Each function gives the numbers of a text, and the reasons in order with whether each holds.
"""

import ast
import io
import math
import re
import tokenize
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from tests.tasks.ingest.filters.oracle_lists import ORACLE_OF_LISTS

HIRAGANA, KATAKANA, KANJI, TOTEN, KUTEN = range(5)
Answer = tuple[dict[str, float], list[tuple[str, bool]]]


def letter_class(letter: str) -> int | None:
    code = ord(letter)
    if 0x3041 <= code <= 0x3096:
        return HIRAGANA
    if 0x30A1 <= code <= 0x30FA:
        return KATAKANA
    if letter in "々〇〻" or 0x3400 <= code <= 0x9FFF or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x2FFFF:
        return KANJI
    if letter in "、，":
        return TOTEN
    return KUTEN if letter in "。．！？" else None


def lines_of(text: str) -> list[str]:
    return [stripped for line in text.split("\n") if (stripped := line.strip())]


def blocks_of(text: str) -> list[str]:
    return [stripped for block in re.split(r"\n\s*\n", text) if (stripped := block.strip())]


def sentences_of(text: str) -> list[str]:
    """Per line, maximal runs of non-terminators followed by at most one terminator (recipes.md 2.1)."""
    found: list[str] = []
    for line in text.split("\n"):
        run = ""
        for letter in line:
            if letter in "。．！？!?":
                if run:
                    found.append(run + letter)
                run = ""
            else:
                run += letter
        if run:
            found.append(run)
    return [stripped for sentence in found if (stripped := sentence.strip())]


def over(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def length(text: str, rules: Any) -> Answer:
    return {"chars": len(text)}, [("too_short", len(text) < rules.min_chars), ("too_long", len(text) > rules.max_chars)]


def japanese(text: str, rules: Any) -> Answer:
    counts = Counter(letter_class(letter) for letter in text)
    letters = sum(counts[i] for i in range(5))
    hiragana, katakana = over(counts[HIRAGANA], letters), over(counts[KATAKANA], letters)
    fraction = over(letters, len(text))
    return {
        "letters": letters,
        "hiragana_fraction": hiragana,
        "katakana_fraction": katakana,
        "japanese_fraction": fraction,
    }, [
        ("few_japanese_letters", letters < rules.min_japanese_letters),
        ("low_hiragana", hiragana < rules.min_hiragana_fraction),
        ("high_katakana", katakana > rules.max_katakana_fraction),
        ("low_japanese", fraction < rules.min_japanese_fraction),
    ]


def sentences(text: str, rules: Any) -> Answer:
    found = sentences_of(text)
    mean = over(sum(map(len, found)), len(found))
    longest = max(map(len, found), default=0)
    ellipses = over(sum(each.endswith(("・", "･", "…", "‥", "...")) for each in found), len(found))
    columns = {"sentences": len(found), "mean_chars": mean, "ellipsis_fraction": ellipses}
    if rules.max_longest_chars:
        columns["longest_chars"] = longest
    return columns, [
        ("no_sentence", not found),
        ("short_sentences", mean < rules.min_mean_chars),
        ("long_sentences", mean > rules.max_mean_chars),
        ("longest_sentence", 0 < rules.max_longest_chars < longest),
        ("ellipsis", ellipses > rules.max_ellipsis_fraction),
    ]


def duplicate_shares(items: Sequence[str]) -> tuple[float, float]:
    repeated = [(item, count - 1) for item, count in Counter(items).items() if count > 1]
    by_count = over(sum(extra for _, extra in repeated), len(items))
    return by_count, over(sum(len(item) * extra for item, extra in repeated), sum(map(len, items)))


def duplication(text: str, rules: Any) -> Answer:
    columns: dict[str, float] = {}
    reasons: list[tuple[str, bool]] = []
    for item, items in (("line", lines_of(text)), ("sentence", sentences_of(text)), ("block", blocks_of(text))):
        for column, found in zip((f"{item}s", f"{item}_chars"), duplicate_shares(items), strict=True):
            limit = getattr(rules, f"max_{column}")
            if limit < 1:
                columns[column] = found
                reasons.append((f"duplicate_{column}", found > limit))
    return columns, reasons


def words(text: str, rules: Any) -> Answer:
    found, lines = text.split(), lines_of(text)
    mean = sum(map(len, found)) / max(1, len(found))
    symbols = over(max(text.count("#"), text.count("…") + text.count("...")), len(found))
    bullets = over(sum(line.startswith(("•", "‣", "◦", "·", "-", "*", "●")) for line in lines), len(lines))
    ellipses = over(sum(line.endswith(("…", "...")) for line in lines), len(lines))
    alphabetic = over(sum(any(map(str.isalpha, word)) for word in found), len(found))
    plain = {word.strip(".,;:!?\"'()").lower() for word in found}
    stop_words = len(plain.intersection(rules.stop_words))
    return {
        "words": len(found),
        "mean_word_chars": mean,
        "symbols_per_word": symbols,
        "bullet_lines": bullets,
        "ellipsis_lines": ellipses,
        "alphabetic_words": alphabetic,
        "stop_words": stop_words,
    }, [
        ("few_words", len(found) < rules.min_words),
        ("many_words", len(found) > rules.max_words),
        ("short_words", mean < rules.min_mean_word_chars),
        ("long_words", mean > rules.max_mean_word_chars),
        ("symbols", symbols > rules.max_symbols_per_word),
        ("bullet_lines", bullets > rules.max_bullet_lines),
        ("ellipsis_lines", ellipses > rules.max_ellipsis_lines),
        ("non_alphabetic", alphabetic < rules.min_alphabetic_words),
        ("few_stop_words", stop_words < rules.min_stop_words),
    ]


def ladder(rules: Any, unit: str, top: Callable[[int], float], duplicated: Callable[[int], float]) -> Answer:
    """Gopher's ladder of n-grams: the most frequent of 2 … 4, the repeated ones of 5 … 10."""
    columns: dict[str, float] = {}
    reasons: list[tuple[str, bool]] = []
    for n in range(2, 11):
        kind = "top" if n < 5 else "duplicated"
        limit = getattr(rules, f"max_{kind}_{n}")
        if limit < 1:
            columns[f"{kind}_{n}"] = top(n) if n < 5 else duplicated(n)
            reasons.append((f"{kind}_{n}{unit}", columns[f"{kind}_{n}"] > limit))
    return columns, reasons


def character_ngrams(text: str, rules: Any) -> Answer:
    def counts(n: int) -> Counter[str]:
        return Counter(text[i : i + n] for i in range(len(text) - n + 1))

    def top(n: int) -> float:
        return max(counts(n).values(), default=0) / max(1, counts(n).total())

    def duplicated(n: int) -> float:
        return sum(count > 1 for count in counts(n).values()) / max(1, len(counts(n)))

    return ladder(rules, "gram", top, duplicated)


def word_ngrams(text: str, rules: Any) -> Answer:
    found = text.split()
    total = max(1, sum(map(len, found)))

    def grams(n: int) -> list[tuple[str, ...]]:
        return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]

    def top(n: int) -> float:
        counts = Counter(grams(n))  # in the order of first occurrence
        most = max(counts.values(), default=0)
        best = next((gram for gram, count in counts.items() if count == most), ())
        return min(1.0, sum(map(len, best)) * most / total) if most > 1 else 0.0

    def duplicated(n: int) -> float:
        seen: set[tuple[str, ...]] = set()
        covered: set[int] = set()
        for place, gram in enumerate(grams(n)):
            if gram in seen:
                covered.update(range(place, place + n))
            seen.add(gram)
        return sum(len(found[place]) for place in covered) / total

    return ladder(rules, "words", top, duplicated)


def python_source(text: str, rules: Any) -> Answer:
    lines = text.split("\n")
    longest, mean = max(map(len, lines)), sum(map(len, lines)) / len(lines)
    nodes: list[ast.AST] = []
    statements = literal = readable = math.nan
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(ast.walk(ast.parse(text)))
        parses = 1
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        parses = 0
    if parses:
        statements = sum(isinstance(node, ast.stmt) for node in nodes)
        literal = over(sum(len(lines[number - 1]) + 1 for number in _table_lines(nodes)), len(text))
        letters = [] if text.isascii() else [letter for letter in _prose(text, nodes) if letter.isalpha()]
        fine = [letter for letter in letters if letter.isascii() or letter_class(letter) in range(3) or letter == "ー"]
        readable = over(len([c for c in fine if c not in "々〇〻" and not 0xF900 <= ord(c) <= 0x2FFFF]), len(letters))
    return {
        "longest_line_chars": longest,
        "mean_line_chars": mean,
        "parses": parses,
        "statements": statements,
        "literal_fraction": literal,
        "readable_comments": readable,
    }, [
        ("long_line", longest > rules.max_line_chars),
        ("long_lines", mean > rules.max_mean_line_chars),
        ("syntax_error", not parses),
        ("few_statements", statements < rules.min_code_nodes),
        ("mostly_data", literal > rules.max_literal_fraction),
        ("comment_language", readable < rules.min_readable_comments),
    ]


def _table_lines(nodes: list[ast.AST]) -> set[int]:
    """Lines of displays of nothing but constants that are longer than 20 lines."""
    displays = (ast.List, ast.Tuple, ast.Set, ast.Dict)
    tables = [node for node in nodes if isinstance(node, displays) and (node.end_lineno or 0) - node.lineno >= 20]
    allowed = (ast.Constant, ast.UnaryOp, *displays)
    return {
        number
        for node in tables
        if all(isinstance(part, allowed) for part in ast.walk(node) if isinstance(part, ast.expr))
        for number in range(node.lineno, (node.end_lineno or 0) + 1)
    }


def _prose(source: str, nodes: list[ast.AST]) -> str:
    found: list[str] = []
    try:
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                found.append(token.string)
    except (tokenize.TokenError, IndentationError):
        pass
    named = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return "".join([*found, *(ast.get_docstring(node, clean=False) or "" for node in nodes if isinstance(node, named))])


ORACLE: dict[str, Callable[[str, Any], Answer]] = {
    "length": length,
    "japanese": japanese,
    "words": words,
    "sentences": sentences,
    "duplication": duplication,
    "character_ngrams": character_ngrams,
    "word_ngrams": word_ngrams,
    "python_source": python_source,
    **ORACLE_OF_LISTS,
}


def reason_of(name: str, text: str, rules: Any) -> str | None:
    """The first reason of one filter."""
    return next((reason for reason, holds in ORACLE[name](text, rules)[1] if holds), None)
