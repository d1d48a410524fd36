"""resiliparse, all text: everything a reader can see but for the elements that `skip` names. The fastest."""

from tasks.ingest.extractors.engine import Engine
from tasks.ingest.extractors.tree import text_and_title


def extract(html: str, skip: tuple[str, ...]) -> tuple[str, str]:
    """All text and the title of the page."""
    return text_and_title(html, skip, main_content=False)


ENGINE = Engine(extract, "resiliparse")
