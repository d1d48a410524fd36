"""Python source."""

from tasks.ingest.filters.length import LengthRules
from tasks.ingest.filters.python_source import PythonRules
from tasks.ingest.languages.pack import LanguagePack


def normalise(source: str) -> str:
    """Line breaks as \\n and one at the end; nothing else, because in code every space counts."""
    lines = source.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n")
    return lines + "\n" if lines else ""


PACK = LanguagePack(
    code="python",
    name="Python",
    content_types=("text/x-python",),
    label="",
    normalise=normalise,
    filters={"length": LengthRules(min_chars=200, max_chars=200_000), "python_source": PythonRules()},
)
