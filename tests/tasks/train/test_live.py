"""The live page and TensorBoard files follow what the trainer writes, whatever happens to the trainer."""

import importlib.util
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import ConfigError
from tasks.page.goodput import SHOWN
from tasks.train import live
from tasks.train.goodput import CAUSES, mark
from tasks.train.journal import write_whole
from tasks.train.live import Live, Tail, charts
from tests.tasks.train.nano import nano_spec

CHROMIUM = Path("/usr/bin/chromium")


def line(step: int, **more: Any) -> dict[str, Any]:
    loss = 2 + 4 * math.exp(-step / 60) + 0.1 * math.sin(step * 12.9898)
    timing = {"seconds": 0.5, "tokens_per_s": 8000.0 + step % 7, "wait_s": 0.002}
    numbers = {"step": step, "loss": loss, "lr": 3e-4 * min(1, step / 20), "grad_norm": 1.0 + 0.1 * math.sin(step)}
    return numbers | {"source_loss": {"ja": loss + 0.2, "en": loss - 0.3}, "tokens": 4096 * step} | timing | more


def text(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def spec(tmp_path, text_pack):
    made = nano_spec(tmp_path, text_pack, page_every_s=3600, usd_per_device_hour=2.0)
    made.write()
    return made


def test_every_cause_has_words_and_a_colour_of_its_own():
    assert tuple(SHOWN) == CAUSES
    assert len(set(SHOWN.values())) == len({words for words, _ in SHOWN.values()}) == len(CAUSES)
    assert len({colour for _, colour in SHOWN.values()}) == len(CAUSES)


def test_tail_reads_whole_lines_once_and_starts_again_in_another_file(tmp_path):
    path = tmp_path / "metrics.jsonl"
    tail = Tail(path)
    assert (tail.read(), tail.lines) == (0, [])
    path.write_text(text(line(1), line(2)) + '{"step": 3, "lo')
    assert tail.read() == 0
    with path.open("a") as file:
        file.write('ss": 1}\nnot JSON\n' + text(line(4)))
    assert tail.read() == 2
    assert [each["step"] for each in tail.lines] == [1, 2, 4], "a line without the fields of a step is not one"
    write_whole(path, text(line(1), line(2), line(3), line(4), line(5)))
    assert tail.read() == 0
    assert [each["step"] for each in tail.lines] == [1, 2, 3, 4, 5]


def test_the_page_says_how_it_goes_and_stops_renewing_itself_when_it_is_over(spec):
    follow = Live(spec, "train <nano>", 400)
    follow()
    assert "No step is finished yet" in spec.page.read_text()
    follow()
    spec.metrics.write_text(text(*(line(step) for step in range(1, 100)), line(100, loss=None, skipped="spike")))
    mark(spec.goodput, "launch")
    time.sleep(0.01)
    mark(spec.goodput, "end", code=0)
    follow()
    assert "No step is finished yet" in spec.page.read_text(), "not before it is time"
    follow._shown = -math.inf
    follow()
    page = spec.page.read_text()
    assert '<meta http-equiv="refresh"' in page
    expected = ("train &lt;nano&gt;", "of 400, 25.0 %", "not finite", "Steps left out", "Loss of ja", "the time went")
    assert [words for words in expected if words not in page] == []
    assert "MFU" not in page, "the peak of a CPU is not known"
    spec.error.write_text(json.dumps({"code": 77, "message": "step 9 is <b>not</b> finite."}))
    follow(is_over=True)
    page = spec.page.read_text()
    assert 'http-equiv="refresh"' not in page
    assert "step 9 is &lt;b&gt;not&lt;/b&gt; finite." in page
    assert not list(spec.run_dir.glob(".live.html*")), "replaced whole"


def test_charts_are_of_what_was_measured():
    titles = [title for title, _ in charts([line(1), line(2)])]
    assert titles == ["Loss", "Learning rate", "Gradient norm", "Speed", "Data wait", "Loss of ja", "Loss of en"]
    assert "MFU" in [title for title, _ in charts([line(1, mfu=0.4)])]
    of_one_source = [title for title, _ in charts([line(1, source_loss={"ja": 1.0})])]
    assert "Loss of ja" not in of_one_source, "it would be the loss again"
    assert charts([]) == []


def test_a_full_disk_does_not_stop_the_run(spec, monkeypatch, caplog):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(live, "write_whole", full)
    Live(spec, "x", 4)()
    assert "No space left on device" in caplog.text


def test_tensorboard_without_its_package_is_explained(spec, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = spec.config.with_changes({"tensorboard": True})
    with pytest.raises(ConfigError, match=r"pip install -e '.\[tensorboard\]'"):
        Live(spec.model_copy(update={"config": config}), "x", 4)


@pytest.mark.skipif(importlib.util.find_spec("tensorboardX") is None, reason="needs tensorboardX (make install)")
def test_tensorboard_files_hold_the_numbers_and_hide_steps_that_were_lost(spec):
    from tensorboardX.proto.event_pb2 import Event

    config = spec.config.with_changes({"tensorboard": True, "page_every_s": 1e-9})
    follow = Live(spec.model_copy(update={"config": config}), "x", 4)
    spec.metrics.write_text(text(line(1), line(2), line(3)))
    follow()
    write_whole(spec.metrics, text(line(1), line(2)))  # a resume at step 2
    follow()
    with spec.metrics.open("a") as file:
        file.write(text(line(3), line(4, loss=None)))
    follow(is_over=True)
    events = []
    for path in sorted(spec.tensorboard.iterdir()):
        data = path.read_bytes()
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 8], "little")
            events.append(Event.FromString(data[at + 12 : at + 12 + size]))
            at += 16 + size
    starts = [event.step for event in events if event.HasField("session_log")]
    assert starts == [1, 1], "the second file hides what the first said of its steps"
    values = {(event.step, value.tag): value.simple_value for event in events for value in event.summary.value}
    assert values[3, "loss"] == pytest.approx(line(3)["loss"])
    assert values[3, "source_loss/en"] == pytest.approx(line(3)["source_loss"]["en"])
    assert (4, "loss") not in values


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs Debian's Chromium (apt-get install chromium)")
@pytest.mark.skipif(importlib.util.find_spec("playwright") is None, reason="needs playwright (make install)")
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_screen_and_phone_and_loads_nothing(spec, width):
    from playwright.sync_api import sync_playwright

    spec.metrics.write_text(text(*(line(step, mfu=0.42) for step in range(1, 300))))
    mark(spec.goodput, "launch")
    mark(spec.goodput, "end", code=0)
    Live(spec, "train nano", 400)()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 844})
        seen: list[str] = []
        page.on("request", lambda request: seen.append(request.url))
        page.on("console", lambda message: seen.append(message.text))
        page.goto(spec.page.as_uri())
        assert seen == [spec.page.as_uri()]
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        assert page.locator("svg.chart").count() == 8
        heights = "() => [...document.querySelectorAll('svg.chart text')].map(e => e.getBoundingClientRect().height)"
        assert min(page.evaluate(heights)) >= 9, "letters stay readable"
        browser.close()
