"""Identity of the ingest stages: thresholds by name are in it, what only says how to run is not."""

import pytest

from tasks.ingest.config import CleanConfig, DedupConfig, MirrorConfig, SourceConfig
from tasks.ingest.filters import FILTERS
from tasks.ingest.filters.presets import RULES
from tasks.ingest.languages import LANGUAGES

HTML = SourceConfig(kind="python_source", name="a", licence="PSF-2.0", attribution="PSF")


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_language_brings_its_rules_with_the_published_thresholds(code):
    config = CleanConfig(language=code)
    assert config.applied() == dict(LANGUAGES[code].filters)


def test_a_threshold_is_found_in_the_identity_by_its_name():
    semantic = CleanConfig(language="ja").semantic()
    assert semantic["filters"]["length"]["min_chars"] == 400
    assert semantic["filters"]["japanese"]["min_hiragana_fraction"] == 0.2
    changed = CleanConfig(language="ja").with_changes({"filters.length.min_chars": 100}).semantic()
    assert changed["filters"].pop("length") == semantic["filters"].pop("length") | {"min_chars": 100}
    assert changed == semantic


def test_a_filter_can_be_left_out_and_one_that_is_not_applied_is_no_part_of_the_identity():
    config = CleanConfig(language="ja").with_changes({"filters.character_ngrams": None})
    assert list(config.applied()) == ["length", "japanese", "sentences", "duplication"]
    assert list(config.semantic()["filters"]) == ["length", "japanese", "sentences", "duplication"]


def test_a_filter_is_switched_on_by_one_of_its_thresholds():
    config = CleanConfig(language="ja").with_changes({"filters.words.min_words": 7})
    assert config.applied()["words"] == FILTERS["words"].rules(min_words=7)


def test_a_set_of_rules_is_named_and_its_thresholds_can_be_changed():
    named = CleanConfig(language="ja", rules="swallow-v2")
    assert named.applied() == dict(RULES["swallow-v2"])
    changed = named.with_changes({"filters.length.min_chars": 100, "filters.japanese": None})
    assert list(changed.applied()) == ["length", "sentences", "duplication"]
    assert changed.applied()["length"] == FILTERS["length"].rules(min_chars=100)
    assert changed.applied()["sentences"] == RULES["swallow-v2"]["sentences"]


def test_another_set_of_rules_keeps_the_thresholds_that_were_changed():
    before = CleanConfig(language="ja").with_changes(
        {"filters.length.min_chars": 100, "filters.duplication": None, "filters.words.min_words": 7}
    )
    after = before.with_changes({"rules": "swallow-v2", "filters.japanese.min_japanese_letters": 80})
    assert list(after.applied()) == ["length", "japanese", "words", "sentences"]
    assert after.applied()["length"].semantic() == {"min_chars": 100, "max_chars": 1_000_000}
    assert after.applied()["japanese"] == FILTERS["japanese"].rules(min_japanese_letters=80)
    assert after.applied()["sentences"] == RULES["swallow-v2"]["sentences"]
    assert after.with_changes({"workers": 2}) == after.model_copy(update={"workers": 2})


def test_the_name_of_the_rules_is_no_part_of_the_identity_but_their_thresholds_are():
    assert CleanConfig(language="ja", rules="swallow-v1").semantic() == CleanConfig(language="ja").semantic()
    assert CleanConfig(language="ja", rules="swallow-v2").semantic() != CleanConfig(language="ja").semantic()
    with pytest.raises(ValueError, match=r"rules='swallow' is not one of swallow-v1, swallow-v2, gopher-en"):
        CleanConfig(language="ja", rules="swallow")


def test_filters_are_applied_in_the_order_of_the_registry():
    given = {"duplication": {}, "length": {"min_chars": 5}}
    assert list(CleanConfig.model_validate({"language": "en", "filters": given}).applied()) == ["length", "duplication"]
    assert list(FILTERS) == sorted(FILTERS, key=list(FILTERS).index)


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (CleanConfig(language="ja"), {"workers": 7}),
        (MirrorConfig(sources=(HTML,)), {"sources": (HTML.with_changes({"cache_dir": "/elsewhere"}),)}),
        (CleanConfig(language="ja"), {"pages": "ingest/tiny:other"}),
        (DedupConfig(), {"docs": "ingest/tiny:other"}),
    ],
)
def test_workers_places_and_references_do_not_change_the_identity(config, change):
    assert config.with_changes(change).semantic() == config.semantic()


@pytest.mark.parametrize(
    ("config", "change"),
    [
        (CleanConfig(language="ja"), {"language": "en"}),
        (CleanConfig(language="ja"), {"min_foreign_words": 6}),
        (CleanConfig(language="ja"), {"skip_elements": ()}),
        (MirrorConfig(sources=(HTML,)), {"max_page_bytes": 5}),
        (MirrorConfig(sources=(HTML,)), {"sources": (HTML.with_changes({"licence": "MIT"}),)}),
        (DedupConfig(), {"min_jaccard": 0.7}),
        (DedupConfig(), {"seed": 1}),
    ],
)
def test_what_changes_the_result_changes_the_identity(config, change):
    assert config.with_changes(change).semantic() != config.semantic()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"language": "xx"}, r"language='xx' has no pack; there are ja, en, python"),
        ({"filters.length.min_chars": -1}, "greater than or equal to 0"),
        ({"filters.length.min_char": 1}, r"'min_char' is not a knob of (.|\n)*Did you mean min_chars"),
        ({"filters.length.min_chars": "many"}, "valid integer"),
        ({"nonsense": 1}, r"'nonsense' is not a knob of CleanConfig(.|\n)*There are pages, language, "),
        ({"filters.nonsense.min_chars": 1}, r"key 'filters.nonsense.min_chars': 'nonsense' is not a group"),
        ({"workers.x": 1}, r"'workers' is not a group of fields"),
    ],
)
def test_unknown_keys_and_wrong_values_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        CleanConfig(language="ja").with_changes(changes)


def test_a_sketch_beyond_reason_is_refused():
    with pytest.raises(ValueError, match=r"bands=500 x rows=50 = 25000 hashes"):
        DedupConfig(bands=500, rows=50)
