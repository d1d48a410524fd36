"""Documentation and source trees, from a directory or a git repository; parallel pairs; licences found file by file."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.artifact import produce
from tasks.errors import ConfigError, HostFault
from tasks.ingest.config import MirrorConfig
from tasks.ingest.mirror import MIRROR
from tasks.ingest.sources import SOURCES
from tasks.ingest.sources.licence_texts import of_head, of_text
from tasks.ingest.sources.markup import asciidoc, markdown, rst
from tasks.ingest.sources.source import Page, Rejected, SourceConfig
from tasks.shards import read_table

MIT = """Copyright (c) 2026 Someone

Permission is hereby granted, free of charge, to any person obtaining a copy of this software … subject to:
The above copyright notice and this permission notice shall be included in all copies."""
TEXTS = Path(__file__).resolve().parents[3] / "tasks" / "licence_texts"


def source(kind: str, location: Path | str, **fields: Any) -> SourceConfig:
    declared = {"licence": "MIT", "attribution": "The authors", "name": "tree"}
    return SourceConfig(kind=kind, location=str(location), **declared | fields)


def read(config: SourceConfig) -> list[Page | Rejected]:
    kind = SOURCES[config.kind]
    return [item for part in kind.parts(config) for item in kind.read(config, part)]


def verdicts(config: SourceConfig) -> dict[str, str]:
    return {item.url: item.licence if isinstance(item, Page) else item.reason for item in read(config)}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


@pytest.fixture
def repository(tmp_path):
    """A git repository with two commits; its address and both ids."""
    root = write(tmp_path / "origin", {"docs/a.md": "# First\n", "LICENSE": MIT, "x.py": "x = 1\n"})

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        command = ["git", *identity, "-C", str(root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "-q", "-b", "main")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    first = git("rev-parse", "HEAD")
    write(root, {"docs/a.md": "# Second\n"})
    git("commit", "-q", "-a", "-m", "two")
    return f"file://{root}/.git", first, git("rev-parse", "HEAD")


class TestMarkup:
    @pytest.mark.parametrize(
        ("markup", "text"),
        [
            ("---\ntitle: x\n---\n# 見出し\n\n本文。", "# 見出し\n\n本文。"),
            ("[説明](https://x.org)と[参照][1]。\n\n[1]: https://y.org\n", "説明と参照。"),
            ("![図](a.png)本文", "本文"),
            ("[![build](https://x/b.svg)](https://x)\n\n本文", "本文"),
            ("<!-- 隠す -->本文<br><p align=center>中</p>", "本文中"),
            ("```html\n<p>[x](y) <!-- z --></p>\n```", "```html\n<p>[x](y) <!-- z --></p>\n```"),
            ("a < b と `List<int>` と **強調**", "a < b と `List<int>` と **強調**"),
        ],
    )
    def test_markdown(self, markup, text):
        assert markdown(markup) == text

    @pytest.mark.parametrize(
        ("markup", "text"),
        [
            ("見出し\n======\n\n本文 :ref:`章 <x>` と :class:`!A`。", "見出し\n======\n\n本文 章 と A。"),
            (".. note::\n   :class: x\n\n   大事。\n", "   大事。"),
            (".. toctree::\n   :maxdepth: 2\n\n   a\n   b\n\n本文", "本文"),
            (".. コメント\n   続き\n\n本文", "本文"),
            ("`説明 <https://x.org>`_と ``code``", "説明と ``code``"),
            (".. _target:\n\n本文", "本文"),
            (".. code-block:: python\n\n   x = 1\n", "   x = 1"),
            (".. function:: f(x)\n\n   説明。", "f(x)\n\n   説明。"),
        ],
    )
    def test_rst(self, markup, text):
        assert rst(markup).strip("\n") == text

    @pytest.mark.parametrize(
        ("markup", "text"),
        [
            (":toc:\n:author: x\n\n= 見出し\n\n本文。", "= 見出し\n\n本文。"),
            ("// 隠す\n本文\n////\n隠す\n////\n続き", "本文\n続き"),
            ("[source,python]\n----\nx = 1\n----", "----\nx = 1\n----"),
            ("link:x.html[説明]と<<章,第一章>>とimage:a.png[図]", "説明と第一章と"),
        ],
    )
    def test_asciidoc(self, markup, text):
        assert asciidoc(markup) == text

    @pytest.mark.parametrize("clean", [markdown, rst, asciidoc])
    @given(text=st.text(alphabet="[]()!<>`.:-#=~_*|/ a本\n\t", max_size=150))
    @settings(max_examples=40, deadline=None)
    def test_nothing_raises_and_cleaning_invents_no_character(self, clean, text):
        assert set(clean(text)) <= set(text) | {" "}

    @pytest.mark.parametrize("clean", [markdown, rst, asciidoc])
    @pytest.mark.parametrize(
        "mark", ["[", "![", "<!--", "<p ", "`", "```\n", ".. ", "link:x[", "////\n", "---\n", ":a:`"]
    )
    def test_time_grows_with_the_text_and_not_with_its_square(self, clean, mark):
        def seconds(times: int) -> float:
            began = time.process_time()
            clean(mark * times)
            return time.process_time() - began

        seconds(100)
        assert seconds(20_000) < 60 * seconds(1_000) + 0.3


class TestDocumentation:
    def test_a_tree_is_read_in_order_and_empty_or_binary_files_are_counted(self, tmp_path):
        write(tmp_path, {"b.md": "# b", "a/x.rst": "x\n=", "c.adoc": "= c", "only.md": "<!-- x -->", "code.py": "x"})
        (tmp_path / "bin.md").write_bytes(b"\x00\x01" * 500)
        found = read(source("documentation", tmp_path))
        assert [item.url for item in found] == ["a/x.rst", "b.md", "bin.md", "c.adoc", "only.md"]
        assert [item.reason for item in found if isinstance(item, Rejected)] == ["garbage", "empty"]

    def test_japanese_in_old_encodings_is_read(self, tmp_path):
        (tmp_path / "a.rst").write_bytes(("日本語の説明です。\n" * 5).encode("euc_jp"))
        [page] = read(source("documentation", tmp_path))
        assert isinstance(page, Page)
        assert page.content.decode().startswith("日本語の説明です。")

    def test_a_repository_is_read_at_its_revision(self, repository, tmp_path):
        url, first, second = repository
        for revision, text in ((first, b"# First"), (second, b"# Second"), ("main", b"# Second")):
            config = source("documentation", url, revision=revision, cache_dir=str(tmp_path / "cache"))
            assert [page.content for page in read(config) if isinstance(page, Page)] == [text]
            assert "Permission is hereby granted" in SOURCES["documentation"].notice(config)

    def test_a_kept_clone_needs_no_network(self, repository, tmp_path):
        url, first, _ = repository
        config = source("documentation", url, revision=first, cache_dir=str(tmp_path / "cache"))
        before = read(config)
        (tmp_path / "origin").rename(tmp_path / "gone")
        assert read(config) == before

    def test_errors_of_git_are_told_apart(self, repository, tmp_path):
        cache = str(tmp_path / "cache")
        with pytest.raises(ValueError, match="has no revision"):
            read(source("documentation", repository[0], cache_dir=cache))
        with pytest.raises(ConfigError, match="has no revision 'nowhere'"):
            read(source("documentation", repository[0], revision="nowhere", cache_dir=cache))
        with pytest.raises(ConfigError, match="begins with a dash"):
            read(source("documentation", repository[0], revision="--upload-pack=x", cache_dir=cache))
        with pytest.raises(HostFault, match="`git fetch`"):
            read(source("documentation", f"file://{tmp_path}/none.git", revision="main", cache_dir=cache))

    def test_links_that_lead_out_of_the_tree_are_not_followed(self, tmp_path):
        outside = write(tmp_path / "outside", {"secret.md": "secret"})
        root = write(tmp_path / "tree", {"a.md": "a"})
        (root / "link.md").symlink_to(outside / "secret.md")
        assert [item.url for item in read(source("documentation", root))] == ["a.md"]


class TestSourceTree:
    def test_each_file_is_under_the_nearest_licence(self, tmp_path):
        write(
            tmp_path,
            {
                "LICENSE": MIT,
                "a.py": "x = 1",
                "gpl/COPYING": (TEXTS / "GPL-2.0.txt").read_text(),
                "gpl/b.py": "x = 2",
                "gpl/c.py": "# SPDX-License-Identifier: MIT\nx = 3",
                "apache/LICENSE.txt": (TEXTS / "Apache-2.0.txt").read_text(),
                "apache/deep/d.rs": "fn main() {}",
                "odd/LICENSE": "All rights reserved.",
                "odd/e.py": "x = 4",
                "dual/LICENSE-MIT": MIT,
                "dual/LICENSE-APACHE": (TEXTS / "Apache-2.0.txt").read_text(),
                "dual/f.go": "package f",
                "either.c": "/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */",
                "both.c": "// SPDX-License-Identifier: MIT AND Apache-2.0",
            },
        )
        assert verdicts(source("source_tree", tmp_path)) == {
            "a.py": "MIT",
            "apache/deep/d.rs": "licence",
            "both.c": "licence",
            "dual/f.go": "MIT",
            "either.c": "licence",
            "gpl/b.py": "licence",
            "gpl/c.py": "MIT",
            "odd/e.py": "no_licence",
        }
        found = verdicts(source("source_tree", tmp_path, permitted=("Apache-2.0", "GPL-2.0-only")))
        assert (found["apache/deep/d.rs"], found["either.c"], found["gpl/b.py"]) == (
            *("Apache-2.0", "Apache-2.0", "GPL-2.0-only"),
        )

    def test_without_any_licence_nothing_is_taken(self, tmp_path):
        write(tmp_path, {"a.py": "x = 1"})
        assert verdicts(source("source_tree", tmp_path)) == {"a.py": "no_licence"}

    def test_a_licence_outside_the_table_cannot_be_permitted(self, tmp_path):
        with pytest.raises(ValueError, match="LICENCES"):
            source("source_tree", tmp_path, permitted=("Whatever-1.0",))

    def test_a_changed_licence_file_is_another_source(self, tmp_path):
        write(tmp_path, {"a.py": "x = 1", "LICENSE": MIT})
        before = SOURCES["source_tree"].state(source("source_tree", tmp_path))
        write(tmp_path, {"LICENSE": (TEXTS / "Apache-2.0.txt").read_text()})
        assert SOURCES["source_tree"].state(source("source_tree", tmp_path)) != before

    def test_the_licence_of_each_file_reaches_the_mirrored_pages(self, tmp_path):
        root = write(tmp_path / "tree", {"LICENSE": MIT, "a.py": "a", "b.py": "# SPDX-License-Identifier: Apache-2.0"})
        config = MirrorConfig(sources=(source("source_tree", root, permitted=("Apache-2.0",), revision="r1"),))
        artifact = produce(str(tmp_path / "store"), MIRROR, "x", config, {})
        pages = read_table(artifact, "pages/").to_pylist()
        assert {page["url"]: page["licence"] for page in pages} == {"a.py": "MIT", "b.py": "Apache-2.0"}
        assert artifact.manifest.licences == ("Apache-2.0", "MIT")
        assert artifact.manifest.extra["sources"][0]["revision"] == "r1"

    @pytest.mark.parametrize("name", ["Apache-2.0", "GPL-2.0", "MPL-2.0", "PSF-2.0"])
    def test_real_licence_texts_are_recognised(self, name):
        assert of_text((TEXTS / f"{name}.txt").read_text()) in (name, f"{name}-only")

    @pytest.mark.parametrize(
        ("line", "ids"),
        [
            ("# SPDX-License-Identifier: MIT", ("MIT",)),
            ("/* SPDX-License-Identifier: (MIT OR Apache-2.0) */", ("MIT", "Apache-2.0")),
            ("// SPDX-License-Identifier: GPL-3.0+", ("GPL-3.0-or-later",)),
            ("; SPDX-License-Identifier: LGPL-2.1", ("LGPL-2.1-only",)),
            ("no such line", None),
        ],
    )
    def test_spdx_lines(self, line, ids):
        found = of_head(line.encode())
        assert (found.ids if found else None) == ids


class TestParallel:
    @pytest.mark.parametrize(
        ("name", "content", "fields"),
        [
            ("x.tsv", "0.9\t今日は。\tHello.\n0.8\t猫\t Cat \n", ("1", "2")),
            ("x.tsv", "en\tja\nHello.\t今日は。\nCat\t猫\n", ("ja", "en")),
            ("x.jsonl", '{"ja": "今日は。", "en": "Hello."}\n{"ja": "猫", "en": "Cat"}\n', ("ja", "en")),
            (
                "x.jsonl",
                '{"translation": {"ja": "今日は。", "en": "Hello."}}\n{"ja": "猫", "en": "Cat"}\n',
                ("ja", "en"),
            ),
        ],
    )
    def test_both_sides_become_two_lines(self, name, content, fields, tmp_path):
        (tmp_path / name).write_text(content)
        found = read(source("parallel", tmp_path, pair_fields=fields))
        texts = [page.content.decode() for page in found if isinstance(page, Page)]
        assert texts == ["今日は。\nHello.", "猫\nCat"]
        joined = read(source("parallel", tmp_path, pair_fields=fields, pairs_per_page=2))
        assert [page.content.decode() for page in joined if isinstance(page, Page)] == ["今日は。\nHello.\n\n猫\nCat"]

    def test_what_is_no_pair_is_a_reject_with_its_line(self, tmp_path):
        (tmp_path / "x.tsv").write_bytes("猫\tCat\n犬\n鳥\t \n\n".encode() + b"\xff\xfe\tx\n" + "馬\tHorse".encode())
        found = read(source("parallel", tmp_path, pair_fields=("0", "1")))
        assert [(item.url, getattr(item, "reason", "")) for item in found] == [
            *(("x.tsv#1", ""), ("x.tsv#2", "no_pair"), ("x.tsv#3", "no_pair"), ("x.tsv#5", "garbage"), ("x.tsv#6", "")),
        ]

    def test_a_head_without_the_fields_is_one_reject(self, tmp_path):
        (tmp_path / "x.tsv").write_text("de\ten\nKatze\tCat\n")
        assert [item.reason for item in read(source("parallel", tmp_path)) if isinstance(item, Rejected)] == [
            "no_pair_fields"
        ]

    def test_one_field_twice_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="a pair has two sides"):
            read(source("parallel", tmp_path, pair_fields=("ja", "ja")))
