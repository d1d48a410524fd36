"""What the HTML pages share: one style sheet, a policy that lets nothing else in, templates that escape every word."""

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.page.charts import Part, bar, compact, dot, line_chart, size
from tasks.page.words import duration, figure, sample, signed, signed_percent, visible

TEMPLATES = Path(__file__).parent / "templates"


def style() -> Markup:
    """The style sheet."""
    return Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))


def content_security_policy(style: str) -> str:
    """Nothing but this very style sheet."""
    digest = base64.b64encode(hashlib.sha256(style.encode("utf-8")).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def environment(templates: Path, **filters: Any) -> Environment:
    """Templates of a folder and of this package, with the charts and the filters of all pages and some of its own."""
    made = Environment(
        loader=FileSystemLoader([templates, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    shared: Mapping[str, Any] = {
        "count": lambda n: f"{n:,}",
        "compact": compact,
        "duration": duration,
        "percent": lambda share: f"{share * 100:.1f} %",
        "sample": sample,
        "figure": figure,
        "signed": signed,
        "size": size,
        "signed_percent": signed_percent,
        "visible": visible,
    }
    made.filters |= {**shared, **filters}
    made.globals |= {"Part": Part, "bar": bar, "dot": dot, "line_chart": line_chart}
    return made
