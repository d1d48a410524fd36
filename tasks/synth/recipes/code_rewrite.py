"""Style-guided rewriting of real Python functions (docstring, type hints), after SGCR of SwallowCode (recipes.md 5.1).

One top-level function at a time, because small teachers cannot hold a file. By default a rewrite is kept only when it
provably does the same: its syntax tree without docstrings and annotations equals the original's.
"""

import ast
import re
import textwrap
from collections.abc import Iterator

from tasks import gates
from tasks.generation.requests import Answer, Sampling
from tasks.synth.recipes.recipe import Ask, CountTokens, NotKept, Recipe, RecipeConfig

MIN_STATEMENTS = 2
MIN_DOCSTRING_WORDS = 3
Function = ast.FunctionDef | ast.AsyncFunctionDef

INSTRUCTION = (
    "Rewrite the Python function with a docstring and type hints. Keep its name, its parameters and its code. "
    "Answer with one Python code block."
)
EXAMPLES = (
    (
        "def clamp(value, low, high):\n    if value < low:\n        return low\n    return min(value, high)",
        "def clamp(value: float, low: float, high: float) -> float:\n"
        '    """Return the value, limited to the range from low to high."""\n'
        "    if value < low:\n        return low\n    return min(value, high)",
    ),
    (
        "def count_lines(path, encoding='utf-8'):\n    total = 0\n    with open(path, encoding=encoding) as file:\n"
        "        for line in file:\n            if line.strip():\n                total += 1\n    return total",
        "def count_lines(path: str, encoding: str = 'utf-8') -> int:\n"
        '    """Count the lines of a text file that are not blank."""\n'
        "    total = 0\n    with open(path, encoding=encoding) as file:\n"
        "        for line in file:\n            if line.strip():\n                total += 1\n    return total",
    ),
)
_FENCE = re.compile(r"```(?:python|py)?[ \t]*\n(?P<code>.*?)\n[ \t]*```", re.DOTALL)


def chunks(text: str, config: RecipeConfig, count: CountTokens) -> Iterator[str]:
    """The top-level functions of a file that lack a docstring and fit in `chunk_tokens`."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in tree.body:
        if isinstance(node, Function) and ast.get_docstring(node) is None and len(node.body) >= MIN_STATEMENTS:
            source = "\n".join(text.splitlines()[_first_line(node) - 1 : node.end_lineno])
            if count(source) <= config.chunk_tokens:
                yield source


def _first_line(node: Function) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def ask(source: str, config: RecipeConfig, chat: bool) -> Ask:
    """Instruction, two examples, the function."""
    sampling = Sampling(max_tokens=config.max_new_tokens)
    if chat:
        turns: list[tuple[str, str]] = [("system", INSTRUCTION)]
        for plain, documented in EXAMPLES:
            turns += [("user", _fenced(plain)), ("assistant", _fenced(documented))]
        return Ask("chat", (*turns, ("user", _fenced(source))), sampling)
    shown = "".join(f"{_fenced(plain)}\n\n{_fenced(documented)}\n\n" for plain, documented in EXAMPLES)
    return Ask("completion", f"{INSTRUCTION}\n\n{shown}{_fenced(source)}\n\n", sampling)


def accept(source: str, answer: Answer, config: RecipeConfig) -> str:
    """The rewritten function.

    Raises:
        NotKept: with the gate that the answer does not pass.
    """
    match = _FENCE.search(answer.text)
    if not match:
        raise NotKept("truncated" if answer.finish == "length" else "unparsed")
    code = textwrap.dedent(match["code"]).strip("\n") + "\n"
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        raise NotKept("does_not_compile") from None
    old = ast.parse(source).body[0]
    assert isinstance(old, Function)
    new = next((n for n in tree.body if isinstance(n, Function) and n.name == old.name), None)
    if new is None:
        raise NotKept("lost_names")
    ratio = len(code) / len(source)
    reason = (
        ("lost_names" if _kept_names(old, tree) < config.gates.min_kept_names else None)
        or ("changed_signature" if _parameters(new) != _parameters(old) else None)
        or ("too_short" if ratio < config.gates.min_length_ratio else None)
        or ("too_long" if ratio > config.gates.max_length_ratio else None)
        or gates.identity_leak(code)
        or gates.leftovers(code)
        or ("changed_code" if config.gates.same_code and (len(tree.body) != 1 or _bare(new) != _bare(old)) else None)
        or _poor_docstring(new)
    )
    if reason:
        raise NotKept(reason)
    return code


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def _parameters(function: Function) -> list[str]:
    arguments = function.args
    found = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [a.arg for a in found] + [a.arg for a in (arguments.vararg, arguments.kwarg) if a is not None]


def _kept_names(old: Function, new: ast.Module) -> float:
    """Share of the names and attributes the original uses that the rewrite still uses."""
    wanted, found = _names(old), _names(new)
    return len(wanted & found) / len(wanted) if wanted else 1.0


def _names(tree: ast.AST) -> set[str]:
    found = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return found | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def _bare(function: Function) -> str:
    """The syntax tree without docstrings and annotations."""
    tree = ast.parse(ast.unparse(function))
    for node in ast.walk(tree):
        if isinstance(node, Function):
            node.returns = None
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
        elif isinstance(node, ast.arg):
            node.annotation = None
    return ast.dump(tree)


def _poor_docstring(function: Function) -> str | None:
    """A rewrite without a docstring of a few words, in English, is no gain."""
    text = ast.get_docstring(function)
    if text is None or len(text.split()) < MIN_DOCSTRING_WORDS:
        return "no_docstring"
    return gates.repetition(text, 0.5) or gates.refusal(text)


RECIPE = Recipe(chunks=chunks, ask=ask, accept=accept, source="code", languages=("python",))
