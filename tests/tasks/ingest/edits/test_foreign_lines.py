"""Foreign lines: prose without a character of the language goes, commands and names stay."""

import pytest

from tasks.ingest.edits.foreign_lines import ForeignLineRules, edit

JAPANESE = ForeignLineRules(native="[\u3041-\u3096\u30a1-\u30fa\u3400-\u9fff]")


def test_lines_of_foreign_prose_are_cut_and_commands_stay():
    text = (
        "設定\n\nThis page has not been translated yet, sorry.\n\nOK をクリックします。\n\n"
        "Choose Insert - Text\n\n# apt-get install --no-install-recommends foo bar baz\n\n"
        "Use the かな key to switch it."
    )
    (left,), counts = edit([text], JAPANESE)
    assert left == (
        "設定\n\nOK をクリックします。\n\nChoose Insert - Text\n\n"
        "# apt-get install --no-install-recommends foo bar baz\n\nUse the かな key to switch it."
    )
    assert (counts["lines"][0], counts["chars"][0]) == (1, len(text) - len(left))


@pytest.mark.parametrize(("words", "kept"), [(5, True), (6, False)])
def test_the_number_of_words_decides(words, kept):
    assert bool(edit(["word " * words], JAPANESE)[0][0]) == kept


def test_a_text_without_foreign_lines_is_the_same_text():
    text = "一\n\n\n\n二"
    assert edit([text], JAPANESE)[0] == [text]
