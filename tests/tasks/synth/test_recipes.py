"""Recipes: what is asked, and what is kept of the answers, which are real ones of SmolLM2-135M and Gemma-3-270m."""

import ast

import pytest

from tasks.generation.requests import Answer
from tasks.synth.config import SynthConfig
from tasks.synth.recipes import RECIPES, code_document, qa, question
from tasks.synth.recipes.passages import content_words, passages
from tasks.synth.recipes.recipe import NotKept


def config(recipe: str, language: str, **changes: object) -> SynthConfig:
    return SynthConfig(documents="d", teacher="t", recipe=recipe, language=language, max_requests=9, **changes)  # type: ignore[arg-type]


def said(text: str, finish: str = "stop") -> Answer:
    return Answer(text=text, finish=finish, prompt_tokens=1, completion_tokens=1, seconds=0.0)


def verdict(recipe: str, language: str, chunk: str, text: str, finish: str = "stop", **changes: object) -> str | None:
    """The gate that closes, None when the answer is kept."""
    try:
        RECIPES[recipe].accept(chunk, said(text, finish), config(recipe, language, **changes))
    except NotKept as gate:
        return str(gate)
    return None


def words(text: str) -> int:
    return len(text.split())


PROSE = "Mail servers store mail until it is read. They forward mail to other hosts when a domain record names them."
MENU = "Home\n\nAbout us\n\nContact"


def test_passages_are_prose_and_end_before_the_limit():
    text = f"{MENU}\n\n{PROSE}\n\n{PROSE} Again.\n\nColumn | Column\n\n{PROSE}"
    found = list(passages(text, config("qa", "en", chunk_tokens=45), words))
    assert found == [f"{PROSE}\n{PROSE} Again."]  # the last one is alone and too short
    assert all(words(chunk) <= 45 for chunk in found)


def test_a_paragraph_longer_than_the_limit_is_left_out():
    assert list(passages(" ".join([PROSE] * 9), config("qa", "en", chunk_tokens=50), words)) == []


def test_inflected_forms_are_one_word_and_japanese_words_are_runs_of_one_script():
    assert content_words("He provides the created policies.", "en") == content_words("provide create policy", "en")
    assert content_words("「テンプレート」を設定する", "ja") == ["テンプレート", "設定"]


WINDOW = "The Watch window allows you to observe the value of variables during the execution of a program."


@pytest.mark.parametrize(
    ("sentence", "asked", "gate"),
    [
        pytest.param(WINDOW, "Question: What does the Watch window do?", None, id="kept"),
        pytest.param(WINDOW, "What does the Watch window allow you to observe?", None, id="its own verb"),
        pytest.param(WINDOW, "What does the function RTRIM do?", "off_topic", id="words of an example"),
        pytest.param(WINDOW, "The Watch window allows you to observe.", "no_question", id="not a question"),
        pytest.param(WINDOW, "What does a program do?", "mismatched", id="about something else in the sentence"),
        pytest.param(WINDOW, "Where is the Watch window?", None, id="no cue is asked of a word it holds"),
        pytest.param(WINDOW, "Why does the Watch window allow you to observe?", "mismatched", id="no reason given"),
        pytest.param(
            "The review function is available in LibreOffice for text documents and spreadsheets.",
            "What does the review function do?",
            "mismatched",
            id="the sentence does not say what it does",
        ),
        pytest.param(
            "The locale settings are used for decimal separators and currency symbols in cells.",
            "What does the locale settings do?",
            "mismatched",
            id="number of the verb",
        ),
        pytest.param(
            "A remote file server is a web service that stores documents with version controls.",
            "What is a remote file server?",
            None,
            id="a definition",
        ),
        pytest.param(
            "Built-in templates cannot be edited, renamed or deleted by the user.",
            "What can a built-in template do?",
            "mismatched",
            id="the sentence says what cannot be done",
        ),
        pytest.param(
            "The dialog is automatically minimized when you click into a sheet with the mouse.",
            "How does the dialog automatically minimize when you click into a sheet?",
            "empty_answer",
            id="the question gives the answer away",
        ),
    ],
)
def test_a_question_is_kept_when_the_sentence_answers_it(sentence, asked, gate):
    assert question.subject_sentence(sentence, "en") == sentence
    assert verdict("question", "en", sentence, asked) == gate


@pytest.mark.parametrize(
    "sentence",
    [
        "It contains commands for formatting the selected cells and objects in your document.",
        "Opens the Assign Macro dialog, in which you can give events their own program codes.",
        "Set the fill options for the selected drawing object or the document element you want.",
        "The possible values of the state flag are given in Figure 2.9 together with their names.",
        "The following commands are available for formatting cells, objects and contents.",
        "The Format menu contains: cells, rows, columns and the styles of the selected page.",
        "A very short sentence is no use.",
    ],
)
def test_a_sentence_that_does_not_stand_alone_is_not_asked_about(sentence):
    assert question.subject_sentence(sentence, "en") is None


@pytest.mark.parametrize(
    ("sentence", "rest", "gate"),
    [
        ("スクリプトの編集については、お好みのテキストエディタが利用できます。", "何が利用できますか。", None),
        ("現在実行中の行については、ブレークポイントの設定列にマークが表示されます。", "何が表示されますか。", None),
        (
            "カテゴリーは、キャプションの番号の前に表示されます。",
            "キャプションの番号の前に表示されますか。",
            "empty_answer",
        ),
        (
            "トレースは、現在の数式セルと他のセルの関連を視覚的に明らかにします。",
            "何をするプログラムですか。",
            "ungrounded",
        ),
        ("メニュー表示は、操作状況に合わせて変化します。", "何に変化しますか。", "mismatched"),
        (
            "データ範囲は、表計算ドキュメントの複数の範囲から構成される場合があります。",
            "どの範囲から構成されるか。",
            "no_question",
        ),
        (
            "テキストの書式はオブジェクトやプレゼンテーションから取り込まれます。",
            "何に取り込まれますか。",
            "mismatched",
        ),
        (
            "「non-free」は Debian の中には含まれないため、イメージでは利用できません。",
            "何が利用できますか。",
            "mismatched",
        ),
    ],
)
def test_a_japanese_question_is_its_sentence_with_one_part_asked_for(sentence, rest, gate):
    assert question.subject_sentence(sentence, "ja") == sentence
    assert verdict("question", "ja", sentence, rest) == gate


def test_a_japanese_question_begins_with_the_topic_of_its_sentence():
    sentence = "スクリプトの編集については、お好みのテキストエディタが利用できます。"
    asked = question.ask(sentence, config("question", "ja"), chat=False)
    assert str(asked.prompt).endswith("質問: スクリプトの編集については、")
    kept = RECIPES["question"].accept(sentence, said("何が利用できますか。"), config("question", "ja"))
    assert kept.endswith(f"質問: スクリプトの編集については、何が利用できますか。\n答え: {sentence}\n")


PASSAGE = (
    "The Formula Bar shows the formula of the selected cell. To hide the Formula Bar, unmark the menu item. "
    "If the Formula Bar is hidden, you can still edit cells by activating the edit mode with F2."
)


@pytest.mark.parametrize(
    ("pair", "gate"),
    [
        pytest.param(
            "Question: How can you edit cells if the Formula Bar is hidden?\n"
            "Answer: You can still edit cells by activating the edit mode with F2.",
            None,
            id="kept",
        ),
        pytest.param("Question: What does the Formula Bar show?", "unparsed", id="no answer"),
        pytest.param("Question: What does it show?\nAnswer: A.\nMore: text", "unparsed", id="more than one pair"),
        pytest.param(
            "Question: What does the Formula Bar show?\nAnswer: The Formula Bar shows the Formula Bar.",
            "empty_answer",
            id="says nothing new",
        ),
        pytest.param(
            "Question: What does the Formula Bar show?\n"
            "Answer: The Formula Bar shows the weather forecast of next week in Paris and London.",
            "ungrounded",
            id="invented",
        ),
        pytest.param(
            "Question: What is the capital of France?\nAnswer: Paris is the capital of the French Republic.",
            "off_topic",
            id="another topic",
        ),
        pytest.param(
            "Question: How can you edit cells if it is hidden?\n"
            "Answer: I'm sorry, I cannot help with editing cells here.",
            "refusal",
            id="refused",
        ),
    ],
)
def test_a_pair_is_kept_when_the_passage_supports_it(pair, gate):
    assert verdict("qa", "en", PASSAGE, pair) == gate


def test_a_base_model_goes_on_after_the_mark_and_a_chat_model_gets_turns():
    plain = qa.ask(PASSAGE, config("qa", "en"), chat=False)
    turns = qa.ask(PASSAGE, config("qa", "en"), chat=True)
    assert (plain.kind, turns.kind) == ("completion", "chat")
    assert str(plain.prompt).endswith("\nQuestion:")
    assert [role for role, _ in turns.prompt] == ["system", "user", "assistant", "user", "assistant", "user"]  # type: ignore[misc]
    assert verdict("qa", "en", PASSAGE, " How can you edit?\nAnswer: You activate the edit mode with F2.") in (
        None,
        "off_topic",
    )


READ = """\
def read_signed(fd):
    data = b''
    while len(data) < 4:
        data += os.read(fd, 4)
    return unpack(data)"""


@pytest.mark.parametrize(
    ("sentence", "gate"),
    [
        ("Read signed data from a file.", None),
        ("Return the signed data.", None),
        ("Return the unsigned integer of the window.", "ungrounded"),
        ("Raise ValueError if the data is short.", "wrong_verb"),
        ("Delete the signed data.", "wrong_verb"),
        ("Return the value of the object.", "empty_answer"),
        ("Read data.", "too_short"),
        ("Count the lines of a file that are not blank.", "echo"),
        ("reads signed data from a file", "unparsed"),
        ("Read `signed` data from a file.", "unparsed"),
        ("", "unparsed"),
    ],
)
def test_a_docstring_is_kept_when_the_code_holds_its_words(sentence, gate):
    assert verdict("code_document", "python", READ, sentence) == gate


@pytest.mark.parametrize(
    "source",
    [
        READ,
        "@cache\nasync def find_all(\n    a,\n    b=(1,\n       2),\n):\n    # first\n\n    return a\n    pass",
        "def f(x):\n    @wraps(x)\n    def find():\n        return x\n    return find",
    ],
)
def test_the_documented_function_is_the_original_plus_a_docstring(source):
    function = ast.parse(source).body[0]
    sentence = "Return the found value, " + "which is found and found again, " * 4 + "at last."
    text = code_document._documented(source, function, sentence)
    made = ast.parse(text).body[0]
    assert " ".join((ast.get_docstring(made) or "").split()) == sentence
    assert max(map(len, text.splitlines())) <= 88
    made.body = made.body[1:]
    assert ast.dump(made) == ast.dump(function)


CLAMP = "def clamp(value, low):\n    if value < low:\n        return low\n    return value"
TYPED = (
    'def clamp(value: int, low: int) -> int:\n    """Return the value, at least low."""\n'
    "    if value < low:\n        return low\n    return value"
)


@pytest.mark.parametrize(
    ("answer", "gate"),
    [
        pytest.param(f"```python\n{TYPED}\n```", None, id="kept"),
        pytest.param(f"Sure!\n```py\n{TYPED}\n```\nDone.", None, id="talk around the block"),
        pytest.param(TYPED, "unparsed", id="no block"),
        pytest.param(f"```python\n{CLAMP}\n```", "no_docstring", id="unchanged"),
        pytest.param(
            "```python\n" + TYPED.replace("return low", "return 0") + "\n```", "changed_code", id="does something else"
        ),
        pytest.param(
            "```python\n" + TYPED.replace("low: int)", "high: int)") + "\n```",
            "changed_signature",
            id="other parameter",
        ),
        pytest.param(
            "```python\n" + TYPED.replace("def clamp", "def limit") + "\n```", "lost_names", id="another name"
        ),
        pytest.param("```python\ndef clamp(value, low:\n```", "does_not_compile", id="broken"),
        pytest.param("```python\n" + TYPED + "\n\nprint(clamp(1, 2))\n```", "changed_code", id="more than was asked"),
    ],
)
def test_a_rewrite_is_kept_when_it_does_the_same(answer, gate):
    assert verdict("code_rewrite", "python", CLAMP, answer) == gate


def test_a_cut_rewrite_is_truncated_not_unparsed():
    assert verdict("code_rewrite", "python", CLAMP, "```python\ndef clamp(", finish="length") == "truncated"


def test_without_the_same_code_rule_names_and_length_decide():
    shorter = "```python\ndef clamp(value, low):\n    '''Return value or low.'''\n    return max(value, low)\n```"
    assert verdict("code_rewrite", "python", CLAMP, shorter) == "changed_code"
    assert verdict("code_rewrite", "python", CLAMP, shorter, gates={"same_code": False}) is None


def test_functions_are_cut_out_of_a_file_with_their_decorators_and_documented_ones_are_left():
    documented = 'def documented(a):\n    """Yes."""\n    b = a\n    return b'
    text = f"import os\n\n@cache\n{CLAMP}\n\n{documented}\n\ndef one(a): return a\n"
    for recipe in ("code_rewrite", "code_document"):
        assert list(RECIPES[recipe].chunks(text, config(recipe, "python"), words)) == [f"@cache\n{CLAMP}"]
    assert list(RECIPES["code_rewrite"].chunks("def broken(:", config("code_rewrite", "python"), words)) == []


@pytest.mark.parametrize(("recipe", "language"), [("qa", "python"), ("question", "fr"), ("code_rewrite", "en")])
def test_a_recipe_that_does_not_know_the_language_is_refused(recipe, language):
    with pytest.raises(ValueError, match="does not know language"):
        config(recipe, language)
