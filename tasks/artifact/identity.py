"""What makes an artifact the same artifact: the fingerprint, and beside it the digest of the code that made it."""

import ast
import functools
import hashlib
import importlib.util
import json
import subprocess
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path, PurePath
from typing import Any


def canonical(value: Any) -> Any:
    """A JSON value that is equal for equal configs: enums by value, paths as text, sets sorted.

    Raises:
        TypeError: the value has no canonical form (an object, a function).
        ValueError: NaN or infinity, which JSON cannot say.
    """
    if isinstance(value, Enum):
        return canonical(value.value)
    if isinstance(value, Mapping):
        return {str(canonical(key)): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [canonical(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((canonical(item) for item in value), key=canonical_json)
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(
        f"a config holds {value!r} ({type(value).__name__}): identity is a hash of JSON, and this has no JSON form. "
        "Use numbers, text, lists, mappings, enums or paths."
    )


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def fingerprint(stage: str, version: str, config: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Identity of what a stage makes: its name and version, the semantic config, the content digests of the parents."""
    return digest({"stage": stage, "version": version, "config": config, "parents": parents})


def code_digest(modules: Sequence[str]) -> str:
    """Digest of the declared modules and packages, comments, docstrings and layout stripped.

    A package counts with all its files (prompt texts and tables by their bytes) except `task.py`, which only wraps.

    Raises:
        ValueError: a module cannot be found, so its code would not be watched.
    """
    found: dict[str, str] = {}
    for name in modules:
        found |= {key: _file_digest(path, path.stat().st_mtime_ns) for key, path in _sources(name).items()}
    return digest(found)


def _sources(module: str) -> dict[str, Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.origin:
        raise ValueError(
            f"code={module!r} is not a module that can be found: the digest of a stage's code must cover what it runs. "
            "Correct the name in the Stage's `code`."
        )
    origin = Path(spec.origin)
    if origin.name != "__init__.py":
        return {module: origin}
    return {
        f"{module}/{path.relative_to(origin.parent).as_posix()}": path
        for path in sorted(origin.parent.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.name != "task.py" and path.suffix != ".pyc"
    }


@functools.lru_cache(maxsize=4096)
def _file_digest(path: Path, mtime_ns: int) -> str:
    del mtime_ns  # part of the cache key only
    content = path.read_bytes()
    if path.suffix == ".py":
        content = repr(_shape(_without_docstrings(ast.parse(content)))).encode()
    return hashlib.sha256(content).hexdigest()


def _without_docstrings(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            text = first.value if isinstance(first, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                del node.body[0]
    return tree


def _shape(node: Any) -> Any:
    """Nested tuples of a syntax tree, empty fields left out, so that new Python versions give the same shape."""
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields if name not in ("ctx", "kind"))
        return (type(node).__name__, *((name, _shape(value)) for name, value in fields if value not in (None, [])))
    if isinstance(node, list):
        return tuple(_shape(item) for item in node)
    return node


@functools.cache
def git_commit() -> str:
    """The commit of this code, with `-dirty` when files differ from it; empty outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(["git", "diff-index", "--quiet", "HEAD"], cwd=here, capture_output=True, check=False)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("-dirty" if dirty.returncode == 1 else "")
