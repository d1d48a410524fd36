"""The short form for the Prefect UI."""

import re

from markdown_it import MarkdownIt

from tasks.report.config import ReportConfig
from tasks.report.summary import artifact_key, escaped, score_rows, summary_markdown


def test_the_summary_says_the_headline_first_and_ends_with_the_page(factory_inputs):
    text = summary_markdown(ReportConfig(), factory_inputs, "/store/report/x-1/data/report.html")
    lines = text.splitlines()
    assert lines[0] == "# Nestling-Tiny-JA"
    assert "| Japanese | 2.913 (base) | 2.104 (cpt) | −27.8 % |" in lines
    assert "| English | 2.231 (base) | 2.262 (cpt) | +1.4 % |" in lines
    assert "file:///store/report/x-1/data/report.html" in lines[-1]
    assert text.index("bits per byte") < text.index("training") < text.index("rows kept")


def test_the_summary_is_tables_and_a_list_when_rendered(factory_inputs):
    text = summary_markdown(ReportConfig(warnings=("code changed",)), factory_inputs, "gs://b/report.html")
    html = MarkdownIt("commonmark").enable("table").render(text)
    assert html.count("<table>") == 2
    assert "<blockquote>" in html
    assert 'href="gs://b/report.html"' in html


def test_words_from_outside_cannot_write_markdown_or_html():
    hostile = "x](http://evil) <img src=x onerror=alert(1)> | `code` **bold** ![i](u)\n# heading\u202e & ~~s~~"
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(f"- {escaped(hostile)}")
    assert re.findall(r"<(\w+)", html) == ["ul", "li"]
    shown = html.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert "x](http://evil) <img src=x onerror=alert(1)> | `code` **bold** ![i](u) # heading⟨U+202E⟩ & ~~s~~" in shown


def test_there_is_a_row_for_every_score(factory_inputs):
    rows = score_rows(ReportConfig(), factory_inputs)
    assert len(rows) == 12
    assert rows[0] == {
        "task": "bits_per_byte",
        "language": "ja",
        "metric": "bits_per_byte",
        "model": "base",
        "value": 2.913,
        "standard error": 0.021,
        "change": "reference",
        "items": 42,
    }
    assert rows[1]["change"] == "−27.8 %"
    assert rows[4]["change"] == "+1.4 % (noise)"


def test_artifact_keys_are_what_prefect_accepts():
    assert artifact_key("report", "CPT_tiny/ja.1") == "report-cpt-tiny-ja-1"
