"""Licences: the gate refuses what a licence in the lineage forbids, and only that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.licences import LICENCES, TEXTS, check_release, duties, licence, missing, required_name_parts, text_of, union

LLAMA_NOTICE = (
    "Llama 3.3 is licensed under the Llama 3.3 Community License, Copyright © Meta Platforms, Inc. All Rights Reserved."
)
GEMMA_NOTICE = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"


def complete(**changes: str | None) -> dict[str, str]:
    """The files of a release made from Gemma, Llama 3.3, Apache and MIT works, with some replaced or removed."""
    files: dict[str, str | None] = {
        "README.md": "# x\nBuilt with Gemma. Built with Llama.\n",
        "NOTICE": f"{GEMMA_NOTICE}\n{LLAMA_NOTICE}\n",
        "LICENSES/Apache-2.0.txt": "text",
        "LICENSES/GEMMA_TERMS.html": "text",
        "LICENSES/LICENSE-LLAMA": "text",
        "NOTICES/a.txt": "Copyright",
    }
    files |= {key.replace("__", "/").replace("_dot_", "."): value for key, value in changes.items()}
    return {path: text for path, text in files.items() if text is not None}


IDS = ("gemma", "llama3.3", "Apache-2.0", "MIT")


def test_a_complete_release_passes():
    check_release("Gemma-2-Llama-Nestling-2b", IDS, complete())


@pytest.mark.parametrize(
    ("name", "files", "says"),
    [
        pytest.param("Nestling-2b", complete(), '"Llama"', id="no Llama in the name"),
        pytest.param("llama-nestling", complete(), '"Llama"', id="the name part is a word with its capital"),
        pytest.param(
            "Llama-N", complete(NOTICE=GEMMA_NOTICE), "Llama 3.3 is licensed", id="Llama's notice line is missing"
        ),
        pytest.param(
            "Llama-N", complete(NOTICE=LLAMA_NOTICE), "Gemma is provided", id="Gemma's notice line is missing"
        ),
        pytest.param("Llama-N", complete(NOTICE=None), "NOTICE lacks", id="no NOTICE at all"),
        pytest.param(
            "Llama-N", complete(README_dot_md="Built with Llama."), "Built with Gemma.", id="the card is silent"
        ),
        pytest.param("Llama-N", {**complete(), "LICENSES/GEMMA_TERMS.html": "x"} | {}, None, id="complete"),
    ],
)
def test_each_missing_part_refuses_the_release(name, files, says):
    if says is None:
        check_release(name, IDS, files)
        return
    with pytest.raises(ConfigError) as refused:
        check_release(name, IDS, files)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("LICENSES/GEMMA_TERMS.html", "Gemma Terms of Use"),
        ("LICENSES/LICENSE-LLAMA", "Llama 3.3 Community License"),
        ("LICENSES/Apache-2.0.txt", "Apache-2.0.txt"),
        ("NOTICES/a.txt", "MIT"),
    ],
)
def test_each_missing_file_refuses_the_release(path, says):
    files = complete()
    del files[path]
    with pytest.raises(ConfigError) as refused:
        check_release("Llama-N", IDS, files)
    assert says in str(refused.value)
    assert "licence_files" in str(refused.value), "the remedy is named"


def test_everything_that_is_missing_is_said_at_once():
    assert len(missing("N", IDS, {})) == 9


def test_public_domain_asks_for_nothing():
    check_release("anything", ("CC0-1.0", "public-domain"), {})


def test_an_unknown_licence_names_the_table_and_its_neighbours():
    with pytest.raises(ConfigError) as unknown:
        licence("GPL-2+")
    assert "tasks/licences.py" in str(unknown.value)
    assert "GPL-2.0" in str(unknown.value)


def test_name_parts_come_from_llama_only():
    assert required_name_parts(["gemma", "MIT"]) == ()
    assert required_name_parts(["gemma", "llama3.1", "llama3.3"]) == ("Llama",)


@given(st.lists(st.lists(st.sampled_from(sorted(LICENCES)))))
def test_the_union_is_sorted_without_repeats_and_duties_only_grow(sets):
    everything = union(*sets)
    assert list(everything) == sorted({item for ids in sets for item in ids})
    for ids in sets:
        assert set(duties(ids).notice_lines) <= set(duties(everything).notice_lines)
        assert len(missing("N", ids, {})) <= len(missing("N", everything, {}))


def test_every_text_in_the_table_is_shipped_and_is_that_licence():
    for row in LICENCES.values():
        if row.text:
            words = set(text_of(row.text).decode().lower().split())
            assert {"license", "copyright"} & words, row.text
    assert {path.name for path in TEXTS.iterdir()} == {row.text for row in LICENCES.values() if row.text}
