"""The page: complete in itself, safe with hostile words, the same for the same inputs, sound for screen readers."""

import base64
import hashlib
import itertools
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tasks.artifact import Artifact, Workspace, produce
from tasks.page import TEMPLATES
from tasks.report.config import ReportConfig
from tasks.report.report import PAGE, REPORT, render

VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """The elements of a page, and whether its tags nest."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()
        assert self.open == [], "tags left open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"<{tag}> has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes <{self.open[-1]}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        return "".join(data for tag, data in self.texts if tag != "style")


@pytest.fixture(scope="module")
def html(factory_inputs: dict[str, Artifact]) -> str:
    return render(ReportConfig(), factory_inputs)


def test_bits_per_byte_before_and_after_come_before_anything_else(html):
    text = Page(html).text
    first_number = re.search(r"\d\.\d{3}", text)
    assert first_number is not None
    assert first_number.group() == "2.913"
    assert text.index("2.104") < text.index("Time of all stages") < text.index("Corpus")


def test_the_page_loads_nothing_and_leads_nowhere(html, hostile_html):
    for page in (Page(html), Page(hostile_html)):
        assert not {tag for tag, _ in page.elements} & {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "form",
        }
        for tag, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")], tag
            assert not {"src", "srcset", "style", "background", "xlink:href", "action"} & attributes.keys(), tag
            assert attributes.get("href", "#") is not None
            assert (attributes.get("href") or "#").startswith("#"), attributes
    style = (TEMPLATES / "style.css").read_text(encoding="utf-8")
    assert not re.search(r"url\(|@import|@font-face|expression", style)


def test_the_policy_allows_this_very_style_sheet_and_nothing_else(html):
    page = Page(html)
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    (style,) = [data for tag, data in page.texts if tag == "style"]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert html.index("Content-Security-Policy") < html.index("<style>")


def test_hostile_words_are_shown_and_never_become_elements(html, hostile_html, evil):
    page = Page(hostile_html)
    shown = evil.replace("\x00", "⟨U+0000⟩").replace("\u202e", "⟨U+202E⟩")
    assert page.text.count(shown) >= 15, "every place is reached: texts, reasons, models, answers, sources, facts"
    assert "49" not in [data for _, data in page.texts], "templates in data are not run"
    assert {tag for tag, _ in page.elements} <= {tag for tag, _ in Page(html).elements} | {"polygon"}
    assert "\x00" not in hostile_html
    assert "\u202e" not in hostile_html
    hostile_html.encode("utf-8")


def test_a_lone_surrogate_does_not_break_the_file(store, make):
    def body(workspace: Workspace, inputs: dict[str, Artifact]) -> None:
        with workspace.unit("0") as unit:
            unit.write_bytes("generations.jsonl", b'{"model": "m", "prompt": "\\ud800", "answer": "\\udfff"}\n')

    made = make(store, "eval", "x", body)
    assert "⟨U+D800⟩" in render(ReportConfig(evaluation="x"), {"evaluation": made}).encode("utf-8").decode()


def test_equal_inputs_give_equal_bytes_wherever_the_store_is(factory_inputs, tmp_path):
    config = ReportConfig()
    made = [produce(str(tmp_path / name), REPORT, "r", config, factory_inputs) for name in ("one", "two")]
    assert made[0].manifest.content_digest == made[1].manifest.content_digest
    assert made[0].read_bytes(PAGE).decode() == render(config, factory_inputs)


def test_a_finished_report_is_a_hit(factory_inputs, store):
    first = produce(store, REPORT, "r", ReportConfig(), factory_inputs)
    assert produce(store, REPORT, "r", ReportConfig(), factory_inputs).manifest == first.manifest


def test_the_page_does_not_say_where_the_store_is(html, factory_inputs):
    assert str(Path(factory_inputs["release"].url).parent) not in html


def test_a_part_of_the_lineage_that_is_gone_is_said_and_the_rest_is_shown(store, make, build):
    inputs = build(store)
    (gone,) = Path(store).glob("clean/tiny-ja-*")
    shutil.rmtree(gone)
    page = Page(render(ReportConfig(), inputs))
    assert "cannot be read any more, so figures below leave it out: clean/tiny-ja." in page.text
    assert "not readable any more" in page.text
    assert "clean/tiny-en" in page.text
    assert "mirror/tiny" in page.text


@pytest.mark.parametrize("kind", ["mirror", "teacher"])
def test_a_run_of_one_stage_has_a_page_without_empty_sections(factory_inputs, kind):
    from tasks.report.lineage import trace

    (node,) = [node for node in trace(factory_inputs) if node.stage == kind]
    assert node.artifact is not None
    page = Page(render(ReportConfig(title="ingest/tiny"), {"others.0": node.artifact}))
    ids = {attributes.get("id") for _, attributes in page.elements}
    assert {"time", "lineage", "environment"} <= ids
    assert not {"scores", "mixture", "training", "answers"} & ids
    assert "none of them a release" in page.text


def test_nothing_to_report_on_is_still_a_page():
    assert "Factory run" in Page(render(ReportConfig(), {})).text


def test_every_table_has_a_name_every_id_is_unique_and_every_link_lands(html, hostile_html):
    for page in (Page(html), Page(hostile_html)):
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        captions = len(page.all("caption"))
        named = [t["aria-labelledby"] for t in page.all("table") if "aria-labelledby" in t]
        assert captions + len(named) == len(page.all("table"))
        assert set(named) <= set(ids)
        assert {str(a["href"])[1:] for a in page.all("a")} <= set(ids)
        assert all("scope" in cell for cell in page.all("th"))
        for region in (d for d in page.all("div") if d.get("role") == "region"):
            assert region.get("tabindex") == "0"
            assert region.get("aria-label") or region.get("aria-labelledby") in ids


def test_every_drawing_is_named_or_hidden_from_readers_aloud(html):
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        assert 'aria-hidden="true"' in svg[:200] or "<title>" in svg[:300], svg[:120]


def test_headings_never_skip_a_level(html):
    levels = [int(tag[1]) for tag, _ in Page(html).elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _contrast(one: str, other: str) -> float:
    high, low = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_text_and_marks_can_be_seen_in_both_themes(theme):
    """WCAG 2.2: 4.5 to 1 for text (1.4.3), 3 to 1 for marks that carry meaning (1.4.11)."""
    block = re.findall(r":root \{(.*?)\}", (TEMPLATES / "style.css").read_text(), re.S)[theme]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", block))
    for ground in ("page", "card"):
        for name in ("ink", "soft", "link", "c1", "c2"):
            assert _contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
        for name in ("before", "after", "kept", "lost", "c0", "c1", "c2", "c3", "c4", "c5", "c6"):
            assert _contrast(colours[name], colours[ground]) >= 3, (name, ground)
    assert _contrast(colours["ink"], colours["warn"]) >= 4.5
    assert _contrast(colours["ink"], colours["sunk"]) >= 4.5


def test_the_proof_of_the_release_and_the_authors_of_the_sources_are_shown(html):
    text = Page(html).text
    assert "Proof: the release read elsewhere" in text
    assert "vLLM" in text
    assert "R. Hertzog, R. Mas" in text


def test_where_the_time_of_training_went_is_shown(html):
    text = Page(html).text
    assert "Where the time of training went" in text
    assert "steps done again" in text
    assert "1.25 USD" in text
