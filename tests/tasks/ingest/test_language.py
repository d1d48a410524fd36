"""Language identification: kana decide alone, the model the rest."""

import pytest

from tasks.ingest.language import identify

ENGLISH = "This manual describes how to install the system and what to do when something goes wrong. " * 3
GERMAN = "Dieses Handbuch beschreibt, wie das System installiert wird und was bei Fehlern zu tun bleibt. " * 3
CHINESE = "本手册介绍如何安装系统以及出现问题时应该怎么办。请仔细阅读以下说明。" * 3
JAPANESE = "この手引きでは、システムの導入方法と、問題が起きたときの対処について説明します。" * 3


def language(text: str, kana: float = 0.1, probability: float = 0.5) -> str:
    return identify(text, min_kana_fraction=kana, min_probability=probability)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        pytest.param(JAPANESE, "ja", id="kana"),
        pytest.param(ENGLISH, "en", id="English"),
        pytest.param(GERMAN, "de", id="German"),
        pytest.param(CHINESE, "zh", id="kanji without kana is not Japanese"),
        pytest.param("", "unknown", id="nothing"),
        pytest.param("1234 5678 -- 90 !!", "unknown", id="no letters"),
        pytest.param("ABC DEF 12", "unknown", id="capitals are not Japanese"),
    ],
)
def test_the_language_of_a_text(text, label):
    assert language(text) == label


def test_kana_decide_from_the_threshold_on():
    letters = sum(map(str.isalpha, ENGLISH))
    text = ENGLISH + "あ" * (letters // 9)  # one tenth of all letters
    assert language(text, kana=0.095) == "ja"
    assert language(text, kana=0.105) == "en"


def test_a_doubtful_answer_is_unknown():
    assert language(ENGLISH, probability=0.5) == "en"
    assert language(ENGLISH, probability=1.0) == "unknown"


def test_line_breaks_do_not_matter():
    assert language(ENGLISH.replace(" ", "\n")) == "en"
