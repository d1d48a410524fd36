"""The page in Debian's Chromium: nothing runs, nothing is fetched, nothing sticks out, on a screen and on a phone."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.report.config import ReportConfig
from tasks.report.report import render

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
OUTSIDE = """() => [...document.querySelectorAll('body *')]
    .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 1 && !e.closest('.scroll'))
    .map(e => e.outerHTML.slice(0, 120))"""

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium (apt-get install chromium)"),
    pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright (make install)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield opened
        opened.close()


def visit(browser: Any, path: Path, width: int, theme: str) -> dict[str, Any]:
    """What the browser did and measured with all details opened."""
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=theme)
    page = context.new_page()
    seen: dict[str, Any] = {"requests": [], "console": [], "dialogs": []}
    page.on("request", lambda request: seen["requests"].append(request.url))
    page.on("console", lambda message: seen["console"].append(message.text))
    page.on("dialog", lambda dialog: seen["dialogs"].append(dialog.message))
    page.goto(path.as_uri())
    page.evaluate("() => document.querySelectorAll('details').forEach(d => { d.open = true })")
    seen["pwned"] = page.evaluate("() => window.pwned")
    seen["width"] = page.evaluate("() => document.documentElement.scrollWidth")
    seen["outside"] = page.evaluate(OUTSIDE)
    seen["ground"] = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    seen["bar"] = page.evaluate("() => getComputedStyle(document.querySelector('.mark')).fill")
    seen["small"] = page.evaluate(
        "() => [...document.querySelectorAll('svg.chart text')].map(e => e.getBoundingClientRect().height)"
    )
    context.close()
    return seen


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_fits_and_loads_nothing(browser, factory_inputs, tmp_path, width, theme):
    path = tmp_path / "report.html"
    path.write_text(render(ReportConfig(), factory_inputs), encoding="utf-8")
    seen = visit(browser, path, width, theme)
    assert seen["requests"] == [path.as_uri()]
    assert seen["console"] == [], "the policy blocked something the page needs, or it is malformed"
    assert seen["width"] == width
    assert seen["outside"] == []
    assert seen["ground"] == ("rgb(251, 251, 249)" if theme == "light" else "rgb(22, 22, 21)")
    assert seen["bar"] != "rgb(0, 0, 0)", "charts are themed"
    assert min(seen["small"]) >= 9, "letters of charts stay readable (CSS pixels)"


@pytest.mark.parametrize("width", [1280, 390])
def test_hostile_words_do_nothing(browser, hostile_html, tmp_path, width):
    path = tmp_path / "hostile.html"
    path.write_text(hostile_html, encoding="utf-8")
    seen = visit(browser, path, width, "light")
    assert seen["pwned"] is None
    assert seen["dialogs"] == []
    assert seen["requests"] == [path.as_uri()]
    assert seen["outside"] == []
