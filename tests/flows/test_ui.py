"""The Prefect UI in Debian's Chromium: the form, the click, the run, its progress and report."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from flows.changes import applied
from flows.cpt import CptChanges
from flows.presets import CPT, CptPreset
from model.families import gemma2
from tests.tasks.training_data import document, make_model, make_pack, make_tokenizer

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
    page.get_by_role("option").first.wait_for(state="hidden")  # while the list closes it swallows the next click


def submit(page: Any) -> str:
    """Click Submit, follow the link to the run, and return its id."""
    for _ in range(6):  # after a correction the form validates once more, and forgets a click made meanwhile
        with contextlib.suppress(playwright.TimeoutError):
            with page.expect_response(
                lambda response: "create_flow_run" in response.url, timeout=STEP_MS / 6
            ) as created:
                page.get_by_role("button", name="Submit").click(timeout=STEP_MS / 6)
            if created.value.status != 503:  # the server's database is busy, and a person clicks again
                break
    assert created.value.ok, created.value.text()
    page.get_by_role("link", name="View run").click()
    page.get_by_role("tab", name="Artifacts").wait_for()
    return created.value.json()["id"]


def fill(page: Any, field: str, value: str) -> None:
    box = page.get_by_label(f"{field} (Optional)", exact=True).first
    assert box.input_value() == "", "a knob is blank until the user fills it in"
    box.fill(value)


def artifact_keys(page: Any) -> list[str]:
    page.reload()  # the list that was fetched with the page, before there were artifacts, is kept otherwise
    page.get_by_role("tab", name="Artifacts").click()
    page.locator("a[href*='/artifacts/key/']").first.wait_for()
    links = page.locator("a[href*='/artifacts/key/']").all()
    return [link.get_attribute("href").rpartition("/")[2] for link in links]


def made(server: Any, stage: str, name: str) -> Path:
    found = [path.parent for path in Path(server.env["NESTLING_STORE"]).glob(f"{stage}/{name}-*/MANIFEST.json")]
    assert len(found) == 1, found
    return found[0]


def run_and_watch(server: Any, deployment: str, changes: dict[str, Any]) -> None:
    """What a user types in a shell: `prefect deployment run FLOW/PRESET --watch`."""
    command = ["deployment", "run", deployment, "--param", f"changes={json.dumps(changes)}", "--watch"]
    env = server.env | {"PREFECT_API_URL": f"{server.url}/api", "PREFECT_HOME": str(server.home / "cli")}
    done = subprocess.run([sys.executable, "-m", "prefect", *command], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "finished successfully in 'Completed'" in done.stdout


@pytest.fixture(scope="module")
def small_pack(real_server: Any) -> str:
    """A pack of a few sentences in the server's store: the real flow, in seconds."""
    store = Path(real_server.env["NESTLING_STORE"])
    rows = [document(f"sentence {i} of a text that is small enough to train on in a test {i * i}") for i in range(60)]
    return make_pack(store, make_tokenizer(store), {"en": rows}).url


def test_cpt_tiny_is_filled_in_clicked_and_completes_with_progress_and_report(real_server, page, small_pack):
    store = Path(real_server.env["NESTLING_STORE"])
    base = make_model(store, make_tokenizer(store), gemma2.SIZES["tiny"]).url

    open_form(page, real_server.url, "cpt", "tiny")
    page.get_by_text("Tokens in one row. [tiny: 512 ·").wait_for()  # help, and what blank means
    choose(page, "preset", "27b")
    choose(page, "preset", "tiny")
    fill(page, "Data", small_pack)
    fill(page, "Base", base)
    fill(page, "Batch tokens", "512")
    fill(page, "Seq len", "1")
    with page.expect_response(lambda response: "create_flow_run" in response.url) as refused:
        page.get_by_role("button", name="Submit").click()
    assert refused.value.status == 409
    page.get_by_text("1 is less than or equal to the minimum of 1").first.wait_for()
    page.get_by_label("Seq len (Optional)", exact=True).fill("64")
    choose(page, "Schedule", "constant")
    run_id = submit(page)

    page.get_by_text("Completed", exact=True).first.wait_for(timeout=300_000)
    keys = artifact_keys(page)
    assert any(key.startswith("progress-train-tiny-cpt") for key in keys), keys
    assert any(key.startswith("report-") for key in keys), keys
    page.locator("a[href*='/artifacts/key/report-']").first.click()
    page.locator("a[href*='/artifacts/artifact/']").first.click()
    page.get_by_test_id("markdown-display").get_by_text("report.html").first.wait_for()

    sent = {"data": small_pack, "base": base, "seq_len": 64, "batch_tokens": 512, "schedule": "constant"}
    parameters = real_server.run(run_id)["parameters"]
    assert parameters["preset"] == "tiny"
    assert applied(CptChanges(**parameters["changes"])) == sent, "the form sends empty groups, which say nothing"
    used = json.loads((made(real_server, "train", "tiny-cpt") / "config.json").read_text())
    assert (used["seq_len"], used["schedule"]) == (64, "constant")
    assert used["peak_lr"] == CPT[CptPreset.TINY].peak_lr, "blank keeps the preset's value"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_cpt_tiny_as_it_is_completes_from_the_form(real_server, page):
    """The whole chain behind cpt/tiny; NESTLING_TEST_STORE names a store where some of it is finished."""
    open_form(page, real_server.url, "cpt", "tiny")
    fill(page, "Log every", "5")
    run_id = submit(page)
    page.get_by_text("Completed", exact=True).first.wait_for(timeout=3_000_000)
    assert real_server.run(run_id)["parameters"]["changes"] == {"log_every": 5}
    assert any(key.startswith("progress-train-tiny-cpt") for key in artifact_keys(page))


def test_a_preset_that_this_machine_cannot_run_waits_for_its_pool(real_server):
    run_id = real_server.start("cpt/27b")
    assert real_server.run(run_id)["work_pool_name"] == "tpu-v6e-256"
    assert real_server.run(run_id)["state_type"] == "SCHEDULED"
    nightly = real_server.get("/deployments/name/eval/nightly")["schedules"]
    assert [(s["schedule"]["cron"], s["schedule"]["timezone"]) for s in nightly] == [("30 2 * * *", "Asia/Tokyo")]


def test_the_nights_of_the_next_days_are_in_the_queue_of_the_evaluation(real_server):
    """Prefect's scheduler failed on each of them with a SQLAlchemy newer than it knows, and only its log said so."""
    nightly = {"flow_runs": {"deployment_id": {"any_": [real_server.get("/deployments/name/eval/nightly")["id"]]}}}
    deadline = time.monotonic() + 120
    while not (nights := real_server.post("/flow_runs/filter", nightly)) and time.monotonic() < deadline:
        time.sleep(1)
    times = [datetime.fromisoformat(run["expected_start_time"]).astimezone(ZoneInfo("Asia/Tokyo")) for run in nights]
    assert {(at.hour, at.minute) for at in times} == {(2, 30)}
    failures = (real_server.home / "logs" / "server.log").read_text().split("Traceback")[1:]
    assert all("database is locked" in failure for failure in failures), "which Prefect tries again on a busy machine"


def test_a_run_with_unknown_or_wrong_knobs_is_refused_by_the_server(real_server):
    deployment = real_server.get("/deployments/name/cpt/tiny")["id"]
    for changes, reason in (
        ({"peek_lr": 1}, "peek_lr"),
        ({"peak_lr": 0}, "minimum"),
        ({"schedule": "x"}, "not one of"),
    ):
        with pytest.raises(OSError, match=r"409|422") as refused:
            real_server.post(f"/deployments/{deployment}/create_flow_run", {"parameters": {"changes": changes}})
        assert reason in refused.value.read().decode()  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.slow
def test_a_run_is_started_and_watched_from_a_shell(real_server, small_pack):
    run_and_watch(real_server, "pretrain/tiny", {"data": small_pack, "seq_len": 64, "batch_tokens": 512})
    assert (made(real_server, "train", "tiny-pretrain") / "MANIFEST.json").is_file()


@pytest.mark.slow
def test_the_automations_are_there_once_and_a_second_deploy_leaves_them_alone(real_server):
    def automations() -> list[tuple[str, str, str]]:
        found = real_server.post("/automations/filter", {})
        return sorted((each["name"], each["id"], each["updated"]) for each in found)

    before = automations()
    assert [name for name, _, _ in before] == ["crash-zombies", "reschedule-crashed"]
    env = real_server.env | {"PREFECT_API_URL": f"{real_server.url}/api", "PREFECT_HOME": str(real_server.home / "cli")}
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-m", "flows.deploy"], cwd=root, env=env, check=True, capture_output=True)
    assert automations() == before
