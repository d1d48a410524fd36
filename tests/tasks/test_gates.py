"""Gates: each side of each threshold, on what small teachers really wrote."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks import gates
from tasks.errors import DataFault


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("The capital of Japan is Tokyo.", None, id="a plain sentence"),
        pytest.param("The shared memory is shared. " * 3, "repetition", id="a sentence that comes again"),
        pytest.param("1.1.1.1: " * 12, "repetition", id="a loop without sentences"),
        pytest.param("野菜、" * 20, "repetition", id="a loop in Japanese"),
        pytest.param(
            "A ledger that is open, a store that is small, a chain that is long, and a block that is here.",
            None,
            id="two words that come again are style",
        ),
        pytest.param(
            "Use a ledger that is tamable, a ledger that is tamable and a ledger that is tamable.",
            "repetition",
            id="four words three times cover the text",
        ),
        pytest.param("a\nb\na\nc\na\nd\na", None, id="a line four times"),
        pytest.param("a\nb\na\nc\na\nd\na\ne\na", "repetition", id="a line five times"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_loops_are_found(text, verdict):
    assert gates.repetition(text, 0.2) == verdict


@given(st.text(alphabet="abcdefghij klmnop", min_size=0, max_size=60))
def test_text_that_loops_for_ever_is_always_found(seed):
    looped = (seed + " and so on ") * 12
    assert gates.repetition(looped, 0.2) == "repetition"


@pytest.mark.parametrize(
    ("text", "leaks"),
    [
        ("As a SmolLM AI, I'm designed to assist.", True),
        ("I was trained by Hugging Face.", True),
        ("OpenAI made ChatGPT.", True),
        ("私はAIアシスタントです。", True),
        ("Claude Monet painted water lilies.", True),  # better lost than leaked
        ("The mail server stores messages.", False),
        ("A gem is a stone.", False),
    ],
)
def test_a_teacher_that_names_itself_or_another_model_is_caught(text, leaks):
    assert gates.identity_leak(text) == ("identity_leak" if leaks else None)


@pytest.mark.parametrize(
    ("text", "refuses"),
    [
        ("I'm sorry for the confusion, but I can't help.", True),
        ("As an AI, I have no opinion.", True),
        ("The date is not mentioned in the text.", True),
        ("申し訳ありませんが、お答えできません。", True),
        ("The server is unable to start without a port.", False),
        ("Sorry sight that it was, the house stood.", False),
    ],
)
def test_refusals_are_caught(text, refuses):
    assert gates.refusal(text) == ("refusal" if refuses else None)


@pytest.mark.parametrize(
    ("text", "claims"),
    [
        ("私は朝から食べます。", True),
        ("My wife and I cook it every day.", True),
        ("I live in Tokyo.", True),
        ("You live in Tokyo.", False),
        ("人は朝から食べます。", False),
    ],
)
def test_an_answer_that_claims_a_life_is_caught(text, claims):
    assert gates.persona(text) == ("persona" if claims else None)


@pytest.mark.parametrize("text", ["<|im_end|> and on", "Dear [Your Name],", "NAME_1 says hello", "[INST] x"])
def test_template_tokens_and_placeholders_are_leftovers(text):
    assert gates.leftovers(text) == "leftovers"


@pytest.mark.parametrize(
    ("text", "language", "verdict"),
    [
        ("This is an English sentence about mail servers.", "en", None),
        ("Dies ist ein deutscher Satz über die Post und das Wetter.", "en", "wrong_language"),
        ("光合成は葉緑体で行われます。", "ja", None),
        ("光合成在叶绿体中进行。", "ja", "wrong_language"),
        ("これは、LibreOffice Calc Format Cells dialog option settings です。", "ja", "wrong_language"),
        ("12345 67890", "en", "wrong_language"),
        ("How is the 歩歩豪勁歩歩豪 used?", "en", "wrong_language"),
    ],
)
def test_the_language_must_be_the_one_asked_for(text, language, verdict):
    assert gates.wrong_language(text, language) == verdict


@pytest.mark.parametrize(("size", "verdict"), [(9, "too_short"), (10, None), (20, None), (21, "too_long")])
def test_lengths_are_inclusive(size, verdict):
    assert gates.length("x" * size, 10, 20) == verdict


def test_the_same_question_in_other_letters_is_the_same():
    one, two = gates.shingles("What is a mail server?"), gates.shingles("what is a  MAIL server")
    other = gates.shingles("Why is the sky blue?")
    assert gates.similarity(one, two) == 1.0
    assert gates.similarity(one, other) < 0.3


@pytest.mark.parametrize(
    ("kept", "stops"),
    [
        pytest.param([], False, id="nothing yet"),
        pytest.param([(31, 0)], False, id="one short of the preview"),
        pytest.param([(32, 0)], True, id="nothing passed in the preview"),
        pytest.param([(32, 3)], True, id="just under a tenth"),
        pytest.param([(30, 3)], False, id="not looked at yet"),
        pytest.param([(32, 4)], False, id="enough"),
        pytest.param([(32, 30), (32, 1)], True, id="a good beginning does not pay for a bad end"),
        pytest.param([(16, 0), (16, 4), (16, 0)], False, id="the window moves: 4 of the last 32"),
        pytest.param([(16, 4), (16, 0), (16, 0)], True, id="the window moves: 0 of the last 32"),
    ],
)
def test_a_low_or_falling_yield_stops_the_run(kept, stops):
    def check() -> None:
        watch = gates.YieldWatch("tiny", preview=32, least=0.1)
        for rows, good in kept:
            watch.add(rows, good, {"empty": 9, "loop": 20})

    if stops:
        with pytest.raises(DataFault, match=r"(?s)min_yield=10.0%.*loop \d+, empty \d+.*rejects/"):
            check()
    else:
        check()


def test_finished_units_count_in_the_yield_and_the_others_are_named():
    records = {"a": SimpleNamespace(counts=SimpleNamespace(in_=32, out=4, dropped={"empty": 28})), "c": None}
    watch = gates.YieldWatch("tiny", preview=32, least=0.1)
    assert watch.take(["a", "b", "c"], records.get) == ["b", "c"]
    with pytest.raises(DataFault, match="0 of the last 32 answers"):
        watch.add(32, 0, {})
    poor = {"a": SimpleNamespace(counts=SimpleNamespace(in_=32, out=3, dropped={}))}
    with pytest.raises(DataFault, match="3 of the last 32 answers"):
        gates.YieldWatch("tiny", preview=32, least=0.1).take(["a"], poor.get)
