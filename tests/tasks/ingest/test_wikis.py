"""Wikis: wikitext to what a reader sees, XML dumps and search-index dumps to pages."""

import bz2
import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.source import Page, Rejected, SourceConfig
from tasks.ingest.sources.wikitext import MAX_DEPTH, plain

DUMP = Path(__file__).resolve().parents[4] / "shared" / "data" / "html-ja" / "mediawiki-dump-fo.xml.bz2"


def read(kind: str, location: Path, **fields: Any) -> list[Page | Rejected]:
    config = SourceConfig(
        kind=kind, name="wiki", licence="CC-BY-SA-4.0", attribution="The authors", location=str(location), **fields
    )
    return [item for part in SOURCES[kind].parts(config) for item in SOURCES[kind].read(config, part)]


def summary(found: list[Page | Rejected]) -> list[str]:
    return [item.url if isinstance(item, Page) else item.reason for item in found]


class TestWikitext:
    @pytest.mark.parametrize(
        ("wikitext", "text"),
        [
            ("'''東京'''は''日本''の首都。", "東京は日本の首都。"),
            ("[[日本|我が国]]の[[首都]]。", "我が国の首都。"),
            ("前{{Infobox|名=x|{{入れ子|y}}}}後", "前後"),
            ("{{lang|en|Tokyo}}と{{仮リンク|市|en|City}}", "Tokyoと市"),
            ("本文<ref>出典</ref>と<ref name=a />続き", "本文と続き"),
            ("本文<!-- 見えない -->続き", "本文続き"),
            ("[[ファイル:x.jpg|thumb|説明[[リンク]]文]]本文[[Category:都市]]", "本文"),
            ("[[:Category:都市]]を参照", "Category:都市を参照"),
            ("{|\n! a\n|-\n| b {{c}}\n|}\n本文", "本文"),
            ("{|\n|\n{|\n| 中\n|}\n|}\n本文", "本文"),
            ("[https://example.org 説明]と[https://example.org]", "説明と"),
            ("* 一\n** 二\n# 三\n: 字下げ", "- 一\n- 二\n- 三\n字下げ"),
            ("== 見出し ==\n本文\n== 脚注 ==\n{{Reflist}}", "見出し\n\n本文"),
            ("== 上 ==\n=== 下 ===\n本文", "上\n\n下\n\n本文"),
            ("a<br />b<br>c", "a\nb\nc"),
            ("5 &lt; 6 &amp; 7&nbsp;km", "5 < 6 & 7\xa0km"),
            ("__TOC__本文__NOTOC__", "本文"),
            ("東京（、{{lang-en|Tokyo}}）は", "東京は"),
            ("<gallery>\nx.jpg|説明\n</gallery>本文", "本文"),
            ("1 < 2 と 3 > 2", "1 < 2 と 3 > 2"),
        ],
    )
    def test_what_a_reader_sees_is_kept(self, wikitext, text):
        assert plain(wikitext) == text

    @pytest.mark.parametrize(
        ("wikitext", "text"),
        [
            ("前{{開いたまま|[[本文]]は残る", "前開いたまま|本文は残る"),
            ("前}}と]]後", "前と後"),
            ("{{a|[[b}}後", "後"),
            ("<ref>開いたまま本文", "開いたまま本文"),
            ("<!-- 開いたまま", "<!-- 開いたまま"),
            ("{|\n| 開いたまま", "| 開いたまま"),
        ],
    )
    def test_marks_without_a_partner_do_not_swallow_the_article(self, wikitext, text):
        assert plain(wikitext) == text

    def test_pictures_and_categories_go_by_the_names_of_the_wiki(self):
        assert plain("[[Mynd:x.jpg]]a[[Bólkur:y]]") == "Mynd:x.jpgaBólkur:y"
        assert plain("[[Mynd:x.jpg]]a[[Bólkur:y]]", ["Mynd"], ["Bólkur"]) == "a"

    @pytest.mark.parametrize("depth", [MAX_DEPTH // 2, 3 * MAX_DEPTH])
    def test_deep_nesting_ends(self, depth):
        assert plain("{{a|" * depth + "x" + "}}" * depth + "本文").endswith("本文")

    @pytest.mark.parametrize(
        "mark", ["{{", "[[", "{|\n", "<ref>", "<!--", "[http://x ", "''", "<b ", "]]", "=", "\n* "]
    )
    def test_time_grows_with_the_text_and_not_with_its_square(self, mark):
        def seconds(times: int) -> float:
            began = time.process_time()
            plain(mark * times + "x")
            return time.process_time() - began

        seconds(100)
        assert seconds(40_000) < 40 * seconds(2_000) + 0.2

    @given(st.text(alphabet="{}[]|=':*#<>!-refa本\n /", max_size=120))
    @settings(max_examples=150, deadline=None)
    def test_no_text_raises_and_no_template_mark_is_left_in_pairs(self, wikitext):
        shown = plain(wikitext)
        assert "{{" not in shown
        assert "[[" not in shown


class TestMediawiki:
    def page(self, title: str, text: str, more: str = "<ns>0</ns>") -> str:
        return (
            f"<page><title>{title}</title>{more}<id>1</id><revision><id>9</id>"
            f"<timestamp>2024-01-02T03:04:05Z</timestamp><model>wikitext</model><text>{text}</text></revision></page>"
        )

    def dump(self, *pages: str) -> bytes:
        head = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/"><siteinfo><dbname>jawiki</dbname>'
        head += "<base>https://ja.wikipedia.org/wiki/%E3%83%A1</base></siteinfo>"
        return (head + "".join(pages) + "</mediawiki>").encode()

    @pytest.mark.parametrize(
        ("suffix", "pack"), [("", bytes), (".bz2", bz2.compress), (".gz", gzip.compress), (".zst", zstandard.compress)]
    )
    def test_articles_are_pages_and_all_else_is_counted(self, suffix, pack, tmp_path):
        pages = [
            self.page("東京 都", "'''東京'''は[[首都]]。"),
            self.page("ノート:東京", "x", "<ns>1</ns>"),
            self.page("江戸", "#REDIRECT [[東京]]", '<ns>0</ns><redirect title="東京" />'),
            self.page("空", "{{Stub}}"),
            self.page("表", "{}").replace("wikitext", "json"),
            self.page("大阪", "大阪は市。"),
        ]
        (tmp_path / f"x.xml{suffix}").write_bytes(pack(self.dump(*pages)))
        found = read("mediawiki", tmp_path)
        assert summary(found) == [
            *("https://ja.wikipedia.org/wiki/%E6%9D%B1%E4%BA%AC_%E9%83%BD", "namespace", "redirect", "empty"),
            *("content_type", "https://ja.wikipedia.org/wiki/%E5%A4%A7%E9%98%AA"),
        ]
        assert isinstance(found[0], Page)
        assert found[0].content.decode() == "東京 都\n\n東京は首都。"
        assert found[0].crawl_time == "2024-01-02T03:04:05Z"

    @pytest.mark.parametrize("pack", [bytes, bz2.compress, gzip.compress])
    def test_a_truncated_dump_is_read_up_to_there(self, pack, tmp_path):
        packed = pack(self.dump(*(self.page(f"t{i}", "本文。" * 2000 + str(i)) for i in range(80))))
        (tmp_path / "x.xml").write_bytes(packed[: len(packed) * 2 // 3])
        found = read("mediawiki", tmp_path)
        assert summary(found)[-1] == "truncated"
        assert all(isinstance(item, Page) for item in found[:-1])

    def test_entities_that_multiply_are_refused(self, tmp_path):
        bomb = '<!DOCTYPE x [<!ENTITY a "' + "x" * 1000 + '">'
        bomb += "".join(f'<!ENTITY {b} "{f"&{a};" * 100}">' for a, b in ("ab", "bc", "cd")) + "]>"
        (tmp_path / "x.xml").write_text(bomb + self.dump(self.page("t", "&d;")).decode())
        assert summary(read("mediawiki", tmp_path)) == ["truncated"]

    def test_a_real_dump_gives_its_article_as_a_reader_sees_it(self):
        if not DUMP.exists():
            pytest.skip(f"{DUMP} is absent")
        system, article = read("mediawiki", DUMP)
        assert isinstance(system, Rejected)
        assert isinstance(article, Page)
        text = article.content.decode()
        assert article.url == "https://fo.wikipedia.org/wiki/Klaksv%C3%ADkar_kommuna"
        assert text.startswith("Klaksvíkar kommuna\n\nKlaksvíkar kommuna er næststørsta kommuna í Føroyum.\n")
        assert "Á Borðoynni\n\n- Klaksvík\n- Árnafjørður\n" in text
        assert text.endswith("Heimasíðan hjá Klaksvíkar kommunu")
        assert not {"{{", "[[", "'''", "Bólkur", "Infoboks"} & set(text.split())


class TestCirrussearch:
    ROWS = (
        {"index": {"_type": "_doc", "_id": "1"}},
        {
            "title": "東京 都",
            "text": "東京は首都。",
            "namespace": 0,
            "wiki": "jawiki",
            "timestamp": "2024-01-02T03:04:05Z",
        },
        {"index": {"_id": "2"}},
        {"title": "ノート", "text": "x", "namespace": 1, "wiki": "jawiki"},
        {"index": {"_id": "3"}},
        {"title": "空", "text": " ", "namespace": 0, "wiki": "jawiki"},
        {"index": {"_id": "4"}},
        {"title": "辞書", "text": "ことば。", "namespace": 0, "wiki": "jawiktionary"},
    )

    @pytest.mark.parametrize(
        ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress), (".zst", zstandard.compress)]
    )
    def test_every_second_line_is_an_article(self, suffix, pack, tmp_path):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.ROWS)
        (tmp_path / f"jawiki-20240101-cirrussearch-content.json{suffix}").write_bytes(pack(lines.encode()))
        found = read("cirrussearch", tmp_path)
        assert summary(found) == [
            *("https://ja.wikipedia.org/wiki/%E6%9D%B1%E4%BA%AC_%E9%83%BD", "namespace", "no_text_field"),
            "https://ja.wiktionary.org/wiki/%E8%BE%9E%E6%9B%B8",
        ]
        assert isinstance(found[0], Page)
        assert found[0].content.decode() == "東京 都\n\n東京は首都。"

    def test_broken_lines_are_counted_with_their_number(self, tmp_path):
        lines = [
            json.dumps(self.ROWS[1]).encode(),
            b"broken",
            b"[1]",
            b"",
            b"[" * 100_000,
            json.dumps(self.ROWS[7]).encode(),
        ]
        (tmp_path / "x-cirrussearch-content.json").write_bytes(b"\n".join(lines))
        found = read("cirrussearch", tmp_path)
        assert [item.reason for item in found if isinstance(item, Rejected)] == [
            *("invalid_json", "no_text_field", "invalid_json"),
        ]
        assert sum(isinstance(item, Page) for item in found) == 2

    def test_a_truncated_dump_is_read_up_to_there(self, tmp_path):
        lines = "".join(
            json.dumps(self.ROWS[1] | {"title": f"t{i}", "text": f"{i * 7919} " * 200}) + "\n" for i in range(3000)
        )
        packed = gzip.compress(lines.encode())
        (tmp_path / "x-cirrussearch-content.json.gz").write_bytes(packed[: len(packed) // 2])
        found = read("cirrussearch", tmp_path)
        assert summary(found)[-1] == "truncated"
        assert len(found) > 100
