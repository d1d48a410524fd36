"""The Prefect UI in Debian's Chromium: the form, the click, the run, its progress and report."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the development requirements")
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
STEP_MS = 60_000  # one click on a loaded machine

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's Chromium: apt-get install chromium"),
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.set_default_timeout(STEP_MS)
        yield page
        page.screenshot(path=Path(os.environ.get("NESTLING_SCREENSHOTS", tmp_path)) / "last.png", full_page=True)
        browser.close()


def open_form(page: Any, url: str, flow: str, deployment: str) -> None:
    """From the front page by clicks to the form of a custom run."""
    page.goto(url)
    page.get_by_role("link", name="Deployments").click()
    row = page.get_by_role("row").filter(has_text=flow)
    for _ in range(10):  # the table is drawn again as counts arrive; what is typed or clicked in between is lost
        with contextlib.suppress(playwright.TimeoutError):
            page.get_by_placeholder("Search deployments").fill(flow, timeout=STEP_MS / 10)
            row.get_by_role("link", name=deployment, exact=True).click(timeout=STEP_MS / 10)
            page.wait_for_url("**/deployments/deployment/**", timeout=STEP_MS / 10)
            break
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()
    page.get_by_role("button", name="Submit").wait_for()


def choose(page: Any, field: str, option: str) -> None:
    page.get_by_role("button", name=f"Select {field}", exact=True).click()
    page.get_by_role("option", name=option, exact=True).click()


def submit(page: Any) -> str:
    """Click Submit, follow the link to the run, and return its id."""
    with page.expect_response(lambda response: "create_flow_run" in response.url) as created:
        page.get_by_role("button", name="Submit").click()
    assert created.value.ok, created.value.text()
    page.get_by_role("link", name="View run").click()
    page.get_by_role("tab", name="Artifacts").wait_for()
    return created.value.json()["id"]


def test_the_form_runs_a_preset_with_the_knobs_that_were_filled_in(server, page):
    open_form(page, server.url, "toy", "tiny")
    page.get_by_text("How far to count. [tiny: 5 · slow: 60]").wait_for()  # help, and what blank means
    choose(page, "preset", "slow")
    steps = page.get_by_label("Steps (Optional)")
    assert steps.input_value() == "", "a knob is blank until the user fills it in"

    steps.fill("0")
    page.get_by_role("button", name="Submit").click()
    assert steps.evaluate("field => field.validationMessage") == "Value must be greater than or equal to 1."

    steps.fill("7")
    page.get_by_label("Pause (Optional)").fill("0.1")
    choose(page, "Unit", "sheep")
    run_id = submit(page)

    page.get_by_text("Completed").first.wait_for(timeout=180_000)
    page.get_by_role("tab", name="Artifacts").click()
    page.get_by_text("toy-progress").last.wait_for()
    page.get_by_role("link", name="toy-report").click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_test_id("markdown-display").get_by_text("counted 7 sheep from 0").wait_for()

    assert server.run(run_id)["parameters"] == {
        "preset": "slow",
        "changes": {"steps": 7, "pause": 0.1, "unit": "sheep"},
    }
    used = json.loads((server.state / f"{run_id}.config.json").read_text())
    assert used == {"steps": 7, "pause": 0.1, "unit": "sheep", "loud": False}, "blank kept the preset's value"


def test_a_run_with_unknown_or_wrong_knobs_is_refused_by_the_server(server):
    deployment = server.get("/deployments/name/toy/tiny")["id"]
    for changes, reason in (({"stepz": 7}, "stepz"), ({"steps": 0}, "minimum"), ({"unit": "goats"}, "not one of")):
        with pytest.raises(OSError, match=r"409|422") as refused:
            server.post(f"/deployments/{deployment}/create_flow_run", {"parameters": {"changes": changes}})
        assert reason in refused.value.read().decode()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_automations_are_there_once_and_a_second_deploy_changes_nothing(server):
    def automations() -> list[tuple[str, str]]:
        return sorted((found["id"], found["updated"]) for found in server.post("/automations/filter", {}))

    before = automations()
    names = sorted(found["name"] for found in server.post("/automations/filter", {}))
    assert names == ["crash-zombies", "reschedule-crashed"]
    command = [sys.executable, "-m", "flows.deploy", str(Path(__file__).parent / "toy")]
    root = Path(__file__).resolve().parents[2]
    env = server.env | {"PREFECT_API_URL": f"{server.url}/api", "PREFECT_HOME": str(server.home / "cli")}
    subprocess.run(command, cwd=root, env=env, check=True, capture_output=True)
    assert automations() == before
