"""Texts in which a machine speaks of itself or refuses, and texts that were garbled for good."""

import pytest

from tasks.ingest.filters import verdicts
from tasks.ingest.filters.garbled import GarbledRules
from tasks.ingest.filters.refusals import RefusalRules
from tasks.ingest.texts import Texts


def reason(text: str, **rules) -> str | None:
    return verdicts.judge(Texts([text]), rules).reasons[0]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("As an AI language model, I cannot browse.", "self_identification", id="English"),
        pytest.param("AIとして、私は意見を持ちません。", "self_identification", id="Japanese"),
        pytest.param("私はAIアシスタントです。", "self_identification", id="introduces itself"),
        pytest.param("OpenAI のモデル\nAIとしての能力を測る。" + "\n本文" * 3, None, id="a page about models"),
        pytest.param("申し訳ありません。" + "\nまた来てください。" * 4, None, id="one line of five"),
        pytest.param("申し訳ありません。" + "\nまた来てください。" * 3, "refusals", id="one line of four"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_machines_that_speak_of_themselves_are_dropped(text, verdict):
    assert reason(text, refusals=RefusalRules()) == verdict


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        pytest.param("\ufffd" + "あ" * 199, None, id="1 lost character of 200"),
        pytest.param("\ufffd" + "あ" * 198, "lost_characters", id="1 of 199"),
        pytest.param("\ue000" * 2 + "あ" * 198, "lost_characters", id="private use"),
        pytest.param("縺ｫ" + "あ" * 98, None, id="mojibake, 2 of 100"),
        pytest.param("縺ｫ" + "あ" * 97, "mojibake", id="2 of 99"),
        pytest.param("ã‚ã‚ã" * 5, "mojibake", id="UTF-8 as windows-1252 with lost bytes"),
        pytest.param("､ﾎ､ｳ､ﾋ", "mojibake", id="EUC-JP as Shift_JIS"),
        pytest.param("‚±‚ñ‚É‚¿", "mojibake", id="Shift_JIS as windows-1252"),
        pytest.param("¥1,200 ¤ ‚quoted‘ café São", None, id="signs that stand alone"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_what_no_repair_could_bring_back_is_dropped(text, verdict):
    assert reason(text, garbled=GarbledRules()) == verdict
