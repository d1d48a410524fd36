"""Tables of a batch of texts, against one text at a time."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.texts import Spans, Texts, code_points
from tests.tasks.ingest.filters.oracle import blocks_of, letter_class, lines_of, sentences_of

STRINGS = st.lists(st.one_of(st.text(alphabet="ab。!\n \u3000\x1c…", max_size=30), st.text(max_size=20)), max_size=6)


def strings_of(texts: Texts, spans: Spans) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(len(texts))]
    for index, document in enumerate(spans.documents.tolist()):
        found[document].append(texts.string(spans, index))
    return found


@given(STRINGS)
@settings(deadline=None)
def test_pieces_are_those_of_each_text_alone(strings):
    texts = Texts(strings)
    assert strings_of(texts, texts.lines) == [lines_of(text) for text in strings]
    assert strings_of(texts, texts.blocks) == [blocks_of(text) for text in strings]
    assert strings_of(texts, texts.sentences) == [sentences_of(text) for text in strings]
    assert strings_of(texts, texts.words) == [text.split() for text in strings]
    numbers, names = texts.vocabulary
    assert [names[number] for number in numbers] == [word for text in strings for word in text.split()]


@given(STRINGS)
@settings(deadline=None)
def test_letters_are_counted_by_class_for_each_text(strings):
    counts = [Counter(letter_class(letter) for letter in text) for text in strings]
    assert Texts(strings).classes[:, :5].tolist() == [[count[i] for i in range(5)] for count in counts]
    assert Texts(strings).japanese_letters.tolist() == [sum(count[i] for i in range(5)) for count in counts]


def test_every_code_point_is_a_letter_or_space_as_python_says():
    everything = "".join(map(chr, range(0x110000)))
    texts = Texts([everything])
    assert texts.is_letter.tolist() == list(map(str.isalpha, everything))
    assert texts.is_space.tolist() == list(map(str.isspace, everything))
    assert len(code_points(everything)) == 0x110000  # lone surrogates are one each
