"""resiliparse, main content: menus, side bars, headers and footers are left out by its rules. The default.

Source: Bevendorff et al., ChatNoir Resiliparse 2.0 (Apache-2.0).
"""

from tasks.ingest.extractors.engine import Engine
from tasks.ingest.extractors.tree import text_and_title


def extract(html: str, skip: tuple[str, ...]) -> tuple[str, str]:
    """Text and title of the page's main content."""
    return text_and_title(html, skip, main_content=True)


ENGINE = Engine(extract, "resiliparse")
