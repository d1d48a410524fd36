"""Real Python functions with a docstring written by the teacher: the rewrite the smallest teachers can do.

They cannot copy ten lines of code without a slip (all of their full rewrites were rejected when this was measured), so
the code stays as it is and only the sentence is theirs. The gates compare each word of it with the code.
"""

import ast
import re
from collections.abc import Iterator

from tasks import gates
from tasks.generation.requests import Answer, Sampling
from tasks.synth.recipes.code_rewrite import Function
from tasks.synth.recipes.code_rewrite import chunks as functions
from tasks.synth.recipes.passages import STOP_WORDS, stem
from tasks.synth.recipes.recipe import Ask, CountTokens, NotKept, Recipe, RecipeConfig

SENTENCE_TOKENS = 48
SENTENCE_WORDS = (4, 24)
MAX_LINE = 88  # of the docstring line
EXAMPLES = (
    (
        "def clamp(value, low, high):\n    if value < low:\n        return low\n    return min(value, high)",
        "Return the value, limited to the range from low to high.",
    ),
    (
        "def count_lines(path, encoding='utf-8'):\n    total = 0\n    with open(path, encoding=encoding) as file:\n"
        "        for line in file:\n            if line.strip():\n                total += 1\n    return total",
        "Count the lines of a file that are not blank.",
    ),
    (
        "def _check_port(port):\n    if not 0 < port < 65536:\n        raise ValueError(f'bad port: {port}')",
        "Raise ValueError if the port is not between 1 and 65535.",
    ),
    (
        "def set_title(window, text):\n    window.title = text\n    window.redraw()",
        "Set the title of the window to the text and draw the window again.",
    ),
)
# Words that say nothing about one function in particular.
_GENERIC_WORDS = (
    "function method value values given specified argument arguments parameter parameters object objects "
    "new result returned python code name names data input output current original true false none otherwise"
)
_GENERIC = {stem(word) for word in _GENERIC_WORDS.split()}
# A word that claims a type, and what the code must hold then.
_CLAIMS = {
    "list": r"\blist\b|\[|append|split|readlines",
    "str": r"\bstr\b|['\"]|join|format|decode|strip",
    "string": r"\bstr\b|['\"]|join|format|decode|strip",
    "dictionary": r"\bdict\b|\{|items\(|keys\(",
    "dictionari": r"\bdict\b|\{|items\(|keys\(",
    "byt": r"\bbytes\b|\bb['\"]|encode|bytearray",
    "integer": r"\bint\b|\blen\b",
    "number": r"\bint\b|\bfloat\b|\blen\b|\d",
    "tupl": r"\btuple\b|, ",
    "fil": r"file|open|\bfd\b|\bfp\b|\bf\b|path|read|write",
    "error": r"raise|except|[eE]rr",
    "exception": r"raise|except|[eE]xc",
    "decorator": r"def .*\n(?:.*\n)* +def ",
}
_IDENTIFIER = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def ask(source: str, config: RecipeConfig, chat: bool) -> Ask:
    """Functions with their summaries as plain text: a chat turn makes small models talk about Python instead."""
    shown = "".join(f"{_fenced(code)}\nSummary: {sentence}\n\n" for code, sentence in EXAMPLES)
    sampling = Sampling(max_tokens=min(SENTENCE_TOKENS, config.max_new_tokens), stop=("\n",))
    return Ask("completion", f"# Documented functions\n\n{shown}{_fenced(source)}\nSummary:", sampling)


def accept(source: str, answer: Answer, config: RecipeConfig) -> str:
    """The function with the teacher's sentence as its docstring.

    Raises:
        NotKept: with the gate that the sentence does not pass.
    """
    sentence = answer.text.strip().strip("\"'").strip()
    function = ast.parse(source).body[0]
    assert isinstance(function, Function)
    words = sentence.split()
    reason = (
        ("truncated" if answer.finish == "length" else None)
        or (
            "unparsed"
            if not re.fullmatch(r"[A-Z][\x20-\x7e]*\.", sentence) or re.search(r"[\"\\`]", sentence)
            else None
        )
        or ("too_short" if len(words) < SENTENCE_WORDS[0] else None)
        or ("too_long" if len(words) > SENTENCE_WORDS[1] else None)
        or gates.leftovers(sentence)
        or gates.refusal(sentence)
        or gates.identity_leak(sentence)
        or gates.repetition(sentence, config.gates.max_repeated)
        or ("echo" if sentence in {shown for _, shown in EXAMPLES} else None)
        or _wrong_verb(sentence, function)
        or _ungrounded(sentence, source)
    )
    if reason:
        raise NotKept(reason)
    return _documented(source, function, sentence)


def _ungrounded(sentence: str, source: str) -> str | None:
    """A word of the sentence that the code does not hold, or no word that is about this code."""
    held = {stem(part.lower()) for part in _IDENTIFIER.findall(source)}
    said = [word.lower() for word in re.findall(r"[A-Za-z][a-z]*|[A-Z]+", sentence)[1:]]
    telling = 0
    for word in said:
        root = stem(word)
        if word in STOP_WORDS or root in _GENERIC:
            continue
        claim = _CLAIMS.get(root)
        if claim is not None and not re.search(claim, source):
            return "ungrounded"
        if claim is None:
            if root not in held:
                return "ungrounded"
            telling += 1
    return None if telling else "empty_answer"


def _wrong_verb(sentence: str, function: Function) -> str | None:
    """The first word is what the function does: it returns, raises, or does what its own names say."""
    verb = stem(sentence.split()[0].lower())
    nodes = list(ast.walk(function))
    if verb in ("return", "get"):
        returns = any(isinstance(node, (ast.Return, ast.Yield)) and node.value is not None for node in nodes)
        return None if returns else "wrong_verb"
    if verb == "rais":
        raised = {part for node in nodes if isinstance(node, ast.Raise) for part in _words(ast.unparse(node))}
        return None if raised and set(_words(sentence.split()[1])) <= raised else "wrong_verb"
    calls = [ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)]
    return None if verb in {stem(w) for w in _words(" ".join([function.name, *calls]))} else "wrong_verb"


def _words(text: str) -> list[str]:
    return [part.lower() for part in _IDENTIFIER.findall(text)]


def _documented(source: str, function: Function, sentence: str) -> str:
    """The source with one docstring line before its first statement."""
    lines = source.splitlines()
    first = function.body[0]
    place = min([first.lineno, *(node.lineno for node in getattr(first, "decorator_list", []))]) - 1
    indent = " " * first.col_offset
    line = f'{indent}"""{sentence}"""'
    while lines[place - 1].lstrip().startswith("#") or not lines[place - 1].strip():
        place -= 1  # comments before the first statement stay after the docstring
    header = [*lines[:place], line] if len(line) <= MAX_LINE else [*lines[:place], *_wrapped(sentence, indent)]
    return "\n".join([*header, *lines[place:]]) + "\n"


def _wrapped(sentence: str, indent: str) -> list[str]:
    head, _, tail = sentence[: MAX_LINE - len(indent) - 3].rpartition(" ")
    return [f'{indent}"""{head}', f"{indent}{tail}{sentence[len(head) + 1 + len(tail) :]}", f'{indent}"""']


def chunks(text: str, config: RecipeConfig, count: CountTokens) -> Iterator[str]:
    """Undocumented top-level functions whose body begins on a line of its own."""
    for source in functions(text, config, count):
        function = ast.parse(source).body[0]
        assert isinstance(function, Function)
        if function.body[0].lineno > function.lineno and not function.name.startswith("_test"):
            yield source


def _fenced(code: str) -> str:
    return f"```python\n{code}\n```"


RECIPE = Recipe(chunks=chunks, ask=ask, accept=accept, source="code", languages=("python",))
