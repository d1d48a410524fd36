"""How numbers and untrusted words are written."""

import pytest

from tasks.page.words import duration, figure, sample, signed, signed_percent, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain\n\ttext 日本語 é 👩‍💻", "plain\n\ttext 日本語 é 👩‍💻"),
        ("a\u202eb", "a⟨U+202E⟩b"),
        ("\x00\x1b[31m", "⟨U+0000⟩⟨U+001B⟩[31m"),
        ("\ud800", "⟨U+D800⟩"),
        ("\u2066x\u2069\ufeff", "⟨U+2066⟩x⟨U+2069⟩⟨U+FEFF⟩"),
        ("a\r\nb\rc", "a\nb⟨U+000D⟩c"),
        (5, "5"),
    ],
)
def test_characters_that_hide_or_turn_text_are_written_out(text, shown):
    assert visible(text) == shown


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.44, "8.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.9, "60 s"),
        (59.96, "1 min 00 s"),
        (192, "3 min 12 s"),
        (3599.6, "1 h 00 min"),
        (7_500, "2 h 05 min"),
        (86_400, "1 d 0 h"),
        (100_000, "1 d 3 h"),
    ],
)
def test_times_are_written_to_two_units(seconds, text):
    assert duration(seconds) == text


def test_differences_carry_a_real_minus_and_zero_has_no_sign():
    assert signed(-0.0421) == "−0.042"
    assert signed(0.5, 1) == "+0.5"
    assert signed(-0.0001) == "0.000"
    assert signed_percent(-0.183) == "−18.3 %"
    assert signed_percent(12.5) == "+1,250.0 %"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\n\n\nb", "a\n\n\n\nb"),
        ("a\n\n\n\n\nb", "a\n⟨5 line breaks⟩\nb"),
        ("\n \n\u3000\n\t\n\n\n" * 200, "\n⟨1,200 line breaks⟩\n"),
        ("a" + " " * 19 + "b", "a" + " " * 19 + "b"),
        ("a" + " " * 20 + "b", "a ⟨20 spaces⟩ b"),
    ],
)
def test_long_runs_of_nothing_are_counted(text, shown):
    assert sample(text) == shown


def test_scores_have_the_digits_that_matter():
    assert [figure(v) for v in (0.2083, 3.5, 12.345, 123.456, 12345.6)] == [
        "0.208",
        "3.500",
        "12.35",
        "123.46",
        "12,346",
    ]
