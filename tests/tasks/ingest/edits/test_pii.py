"""Personal data: each kind is masked where it is certain, left where it is not, and equal to a slow search."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.edits import pii, pii_hints
from tasks.ingest.edits.pii import PiiRules, edit
from tasks.ingest.edits.pii_patterns import (
    CHECKS,
    EVERYWHERE,
    JAPAN,
    SECRETS,
    UNITED_STATES,
    PiiPattern,
    is_japanese_phone,
    is_luhn,
    is_my_number,
)
from tasks.ingest.languages.ko import SOUTH_KOREA


@pytest.fixture(scope="module", autouse=True, params=["with hints", "without"])
def _hints(request):
    """Everything holds with hyperscan, and where it is not installed."""
    if request.param == "with hints":
        pytest.importorskip("hyperscan", reason="the extra [corpus] is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pii_hints, "HAS_HYPERSCAN", request.param == "with hints")
        pii._compiled.cache_clear()
        yield
        pii._compiled.cache_clear()


JA = PiiRules(patterns=(*EVERYWHERE, *SECRETS, *JAPAN))
KO = PiiRules(patterns=(*EVERYWHERE, *SECRETS, *SOUTH_KOREA))
US = PiiRules(patterns=(*EVERYWHERE, *SECRETS, *UNITED_STATES))


def one(text: str, rules: PiiRules = JA) -> str:
    return edit([text], rules)[0][0]


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        pytest.param("連絡はtaro@nestling.jpまで。", "連絡は<EMAIL>まで。", id="an address between Japanese"),
        pytest.param("ｔａｒｏ＠ｎｅｓｔｌｉｎｇ．ｊｐへ", "<EMAIL>へ", id="full width"),
        pytest.param("ユーザーtaro@nestling.jpーム", "ユーザー<EMAIL>ーム", id="the long vowel beside letters"),
        pytest.param("a.b+c_d%e-f@mail.nestling.co.jp.", "<EMAIL>.", id="the sentence keeps its full stop"),
        pytest.param("電話は03-1234-5678です", "電話は<PHONE>です", id="land line"),
        pytest.param("TEL03-1234-5678", "TEL<PHONE>", id="TEL before the number"),
        pytest.param("（03）1234-5678", "<PHONE>", id="area code in brackets"),
        pytest.param("０９０ー１２３４−５６７８", "<PHONE>", id="full-width digits, long vowel and minus as hyphens"),
        pytest.param("携帯 09012345678", "携帯 <PHONE>", id="without hyphens beside a cue"),
        pytest.param("0120-123-456 と 0800-123-4567", "<PHONE> と <PHONE>", id="free numbers"),
        pytest.param("+81 3-1234-5678, +1 (415) 555-2671", "<PHONE>, <PHONE>", id="international"),
        pytest.param("〒100-0001", "<ADDRESS>", id="postal code"),
        pytest.param("〒１００−０００１ 東京都千代田区千代田1-1", "<ADDRESS>", id="with the address behind it"),
        pytest.param("本社は東京都千代田区丸の内一丁目2番3号にある", "本社は<ADDRESS>にある", id="kanji numbers"),
        pytest.param("神奈川県横浜市中区本町6丁目50番地の10", "<ADDRESS>", id="chome and banchi"),
        pytest.param("住所：横浜市中区本町6-50", "住所：<ADDRESS>", id="without prefecture beside a cue"),
        pytest.param("個人番号は1234 5678 9018です", "個人番号は<NATIONAL_ID>です", id="My Number"),
        pytest.param("カード番号\n4111-1111-1111-1111", "カード番号\n<CARD>", id="a card under its cue"),
        pytest.param("key = AKIAIOSFODNN7EXAMPLE", "key = <SECRET>", id="AWS key id"),
        pytest.param(
            'aws_secret_access_key="' + "a1B/" * 10 + '"', 'aws_secret_access_key="<SECRET>"', id="only the value"
        ),
        pytest.param("ghp_" + "a1" * 18, "<SECRET>", id="GitHub"),
        pytest.param("AIza" + "b" * 35, "<SECRET>", id="Google"),
        pytest.param("xoxb-123456789012-abcdef", "<SECRET>", id="Slack"),
        pytest.param("eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.abcDEF-123_x", "<SECRET>", id="JSON Web Token"),
        pytest.param(
            "前\n-----BEGIN RSA PRIVATE KEY-----\nMIIEabc+/=\nabcd\n-----END RSA PRIVATE KEY-----\n後",
            "前\n<SECRET>\n後",
            id="a private key over lines",
        ),
        pytest.param("-----BEGIN PRIVATE KEY-----\nMIIEabc+/=", "<SECRET>", id="a private key that is cut off"),
    ],
)
def test_personal_data_and_secrets_are_masked(text, masked):
    assert one(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("user@example.com, a@b.example, root@host.localhost", id="domains kept for examples"),
        pytest.param("logo@2x.png と @decorator と a@b", id="no domain"),
        pytest.param("2024-01-02 03:04:05、01-02-2024", id="dates"),
        pytest.param("ISBN 978-4-7981-2345-6", id="a book"),
        pytest.param("00-1234-5678、0-387-98503-8", id="no trunk prefix"),
        pytest.param("03-1234-567、090-123-4567、03-1234-56789", id="a digit less or more"),
        pytest.param("A03-1234-5678-9", id="part of a longer code"),
        pytest.param("1234567890、09012345678", id="no hyphens and no cue"),
        pytest.param("1+12345678901、+09:00", id="a sum and a time zone"),
        pytest.param("個人番号は1234 5678 9012です", id="My Number with a wrong check digit"),
        pytest.param("製品番号は123456789018です", id="a right check digit without a cue"),
        pytest.param("カード 4111-1111-1111-1112", id="a card with a wrong check digit"),
        pytest.param("型番 4111-1111-1111-1111", id="a card without a cue"),
        pytest.param("東京都千代田区の人口は約6万人です。", id="a ward is no address"),
        pytest.param("東京都港区では3月に", id="a month is no block"),
        pytest.param("横浜市中区本町6-50", id="no prefecture and no cue"),
        pytest.param("AKIAshort ghp_short eyJab.eyJ.x sk-learn", id="only the beginning of a secret"),
        pytest.param("-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----", id="a public key"),
        pytest.param("<EMAIL> <PHONE> <SECRET>", id="placeholders"),
    ],
)
def test_what_only_looks_like_it_stays(text):
    assert one(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        pytest.param("call (415) 555-2671 or 415-555-2671", "call <PHONE> or <PHONE>", id="telephone"),
        pytest.param("115-555-2671, 415-155-2671", "115-555-2671, 415-155-2671", id="area codes begin with 2 to 9"),
        pytest.param("at 1600 Amphitheatre Pkwy", "at 1600 Amphitheatre Pkwy", id="no city and ZIP code"),
        pytest.param("1 Main Street, Springfield, IL 62704.", "<ADDRESS>.", id="a full address"),
        pytest.param("SSN 123-45-6789", "SSN <NATIONAL_ID>", id="social security number"),
        pytest.param("SSN 666-45-6789, 123-00-6789", "SSN 666-45-6789, 123-00-6789", id="numbers never given"),
        pytest.param("part 123-45-6789", "part 123-45-6789", id="without a cue"),
    ],
)
def test_patterns_of_the_united_states(text, masked):
    assert one(text, US) == masked


@pytest.mark.parametrize(("gap", "found"), [(40 - 4, True), (40 - 3, False)])
def test_a_cue_counts_within_forty_characters(gap, found):
    text = "カード" + "。" + "あ" * gap + "4111111111111111"  # カード begins 4 + gap characters before the number
    assert ("<CARD>" in one(text)) == found


def test_a_cue_in_another_text_does_not_count():
    texts, _ = edit(["カード", "4111111111111111"], JA)
    assert texts == ["カード", "4111111111111111"]


def test_counts_are_those_of_the_placeholders_and_matches_are_nowhere():
    texts = ["a@nestling.jp と b@nestling.jp、03-1234-5678", "なし", ""]
    masked, counts = edit(texts, JA)
    assert {kind: column.tolist() for kind, column in counts.items() if column.any()} == {
        "email": [2, 0, 0],
        "phone": [1, 0, 0],
    }
    assert masked[1:] == texts[1:]


def test_check_digits():
    assert is_luhn("4111 1111 1111 1111")
    assert [is_luhn(f"411111111111111{digit}") for digit in range(10)].count(True) == 1
    assert not is_luhn("0" * 12)
    # Independent statement of the rule: the weighted sum of all twelve digits, 11 less the remainder, 0 from 10 on.
    for body in ("12345678901", "00000000000", "98765432109", "10000000005"):
        total = sum(int(digit) * (n + 1 if n <= 6 else n - 5) for n, digit in enumerate(reversed(body), 1))
        right = 0 if total % 11 <= 1 else 11 - total % 11
        assert [digit for digit in range(10) if is_my_number(f"{body}{digit}")] == [right]
    assert not is_my_number("1234567890")
    assert is_japanese_phone("03-1234-5678")
    assert not is_japanese_phone("090-1234-567")


def test_a_pattern_without_a_gate_is_refused():
    with pytest.raises(ValueError, match="has no gate"):
        PiiPattern(kind="email", pattern="a")
    with pytest.raises(ValueError, match="check='x' is not one of luhn"):
        PiiPattern(kind="email", pattern="a", digits=1, check="x")


_TOKENS = st.sampled_from(
    (
        *(
            "a@nestling.jp",
            "ｂ＠nestling．jp",
            "03-1234-5678",
            "０９０ー１２３４ー５６７８",
            "〒100-0001",
            "東京都千代田区千代田1-1",
        ),
        *("カード", "4111111111111111", "個人番号", "123456789018", "+81 3-1234-5678", "AKIAIOSFODNN7EXAMPLE"),
        *("415-555-2671", "（415）５５５．2671", "SSN", "123－45－6789", "1 Main Street, Springfield, ＩＬ 62704"),
        *("010-1234-5678", "９００１０１-1234567", "서울특별시 종로구 세종로 １", "٣", "ア-1"),
        *("ー", "．", "-", "(", ")", "0", "9", "あ", "a", " ", "\n", "\ud800", "😀"),
    )
)


def slow(text: str, rules: PiiRules) -> str:
    """The same by every pattern on every line, without gates: the oracle."""
    plain = "".join(
        chr(ord(c) - 0xFEE0)
        if "！" <= c <= "～" and c not in "－．"
        else " "
        if c in "\u3000\xa0"
        else "\ufffd"
        if c == "٣"
        else c
        for c in text
    )
    plain = re.sub(r"(?<=[0-9)])[‐‑‒–—―−ーｰ－](?=[0-9(])", "-", re.sub("(?<=[A-Za-z0-9])．(?=[A-Za-z0-9])", ".", plain))
    found = []
    for order, pattern in enumerate(rules.patterns):
        for line in re.finditer(r"(?s).+" if pattern.whole_text else ".+", plain):
            for match in re.finditer(pattern.pattern, line[0]):
                start, end = (line.start() + place for place in match.span("value" if pattern.has_value else 0))
                near = plain[max(0, start - pattern.cue_chars) : end + pattern.cue_chars].lower()
                proved = not pattern.check or CHECKS[pattern.check](plain[start:end])
                if proved and (not pattern.cues or any(cue in near for cue in pattern.cues)):
                    found.append((start, -end, order, pattern.kind))
    masked, last = "", 0
    for start, minus_end, _, kind in sorted(found):
        if start >= last:
            masked += text[last:start] + f"<{kind.upper()}>"
            last = -minus_end
    return masked + text[last:]


@settings(max_examples=100)
@given(texts=st.lists(st.lists(_TOKENS, max_size=12).map("".join), max_size=4), rules=st.sampled_from((JA, US, KO)))
def test_gates_hints_and_batches_change_nothing(texts, rules):
    masked, counts = edit(texts, rules)
    assert masked == [slow(text, rules) for text in texts]
    for kind, column in counts.items():
        assert [text.count(f"<{kind.upper()}>") for text in masked] == column.tolist()


def test_a_long_line_of_near_misses_takes_no_time():
    for near_miss in (
        "a" * 200_000 + "@",
        "03-" * 60_000,
        "4111 " * 40_000 + "カード",
        "eyJ" * 60_000,
        "東京都" * 60_000,
    ):
        assert one(near_miss) == near_miss
