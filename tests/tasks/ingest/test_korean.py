"""Korean is a pack file and nothing else: its pages are kept, Japanese and English ones are not."""

import json
import unicodedata
from pathlib import Path

import pytest
import zstandard

from tasks.ingest.config import CleanConfig
from tasks.ingest.edits.pii import edit
from tasks.ingest.languages import LANGUAGES
from tasks.shards import read_table
from tests.tasks.ingest.corpus import ENGLISH, clean, html, japanese, mirror

KO = LANGUAGES["ko"]
KOREAN = (
    "이 설명서는 시스템을 설치하는 방법과 문제가 생겼을 때 해야 할 일을 차례대로 다룹니다.\n"
    "설치를 시작하기 전에 필요한 부품이 모두 있는지 확인하면 나중에 시간을 아낄 수 있습니다.\n"
    "모르는 낱말이 나오면 책 끝에 있는 용어집을 먼저 읽어 보는 것이 좋습니다.\n"
    "설정을 바꾼 다음에는 반드시 전원을 끄고 처음부터 다시 움직여 보아야 합니다.\n"
    "잘 되지 않을 때는 기록에 남은 문장을 읽으면 원인을 찾기가 훨씬 쉬워집니다.\n"
    "옛 판에서 옮겨 올 때의 주의는 다른 책에 따로 적어 두었으니 그 책을 참고해 주십시오.\n"
    "이 장에서 다루는 명령은 모두 관리자 권한을 가진 사람이 실행해야 한다는 점을 기억하십시오."
)
FEW_HANGUL = "\n".join(f"한글 {number} " + "漢字日本東京大阪" * 4 for number in range(60))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("korean")

    def page(text: str) -> bytes:
        return html("".join(f"<p>{line}</p>" for line in text.split("\n")))

    pages = {
        "korean.html": page(KOREAN),
        "jamo.html": page(unicodedata.normalize("NFD", KOREAN)),
        "footer.html": page(f"{KOREAN}\n연락은 hong@nestling.kr 로 하십시오.\n개인정보처리방침 이용약관\n로그인"),
        "japanese.html": html(japanese(1)),
        "english.html": html(f"<p>{ENGLISH}</p>"),
        "short.html": page(KOREAN[:150]),
        "words.html": page("\n".join(f"{a}{b} 가격표 원산지" for a in "가나다라마바사아" for b in "자차카타파하거너")),
        "repeated.html": page("\n".join(KOREAN.split("\n")[1:3] * 10)),
    }
    artifact = clean(
        folder / "store", mirror(folder, pages), CleanConfig(language="ko", workers=1, extractor="resiliparse_all")
    )
    files = sorted(Path(artifact.url.removeprefix("file://")).glob("rejects/**/*.zst"))
    rows = [
        json.loads(line)
        for file in files
        for line in zstandard.ZstdDecompressor().stream_reader(file.read_bytes()).read().splitlines()
    ]
    documents = {row["url"]: row for row in read_table(artifact, "docs/").to_pylist()}
    return documents, {row["url"]: row["reason"] for row in rows}


def test_korean_pages_are_kept_and_edited(made):
    documents, _ = made
    assert sorted(documents) == ["footer.html", "jamo.html", "korean.html"]
    assert {row["language"] for row in documents.values()} == {"ko"}
    texts = {url: row["text"].replace("\n\n", "\n") for url, row in documents.items()}
    assert texts["korean.html"] == texts["jamo.html"] == KOREAN
    assert texts["footer.html"] == f"{KOREAN}\n연락은 <EMAIL> 로 하십시오."


def test_other_pages_are_dropped_with_their_reasons(made):
    _, reasons = made
    assert reasons == {
        "japanese.html": "language:ja",
        "english.html": "language:en",
        "short.html": "too_short",
        "words.html": "few_stop_words",
        "repeated.html": "duplicate_lines",
    }


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        pytest.param("전화 02-123-4567, 010-1234-5678", "전화 <PHONE>, <PHONE>", id="telephone"),
        pytest.param("0212345678, 010-123-45678", "0212345678, 010-123-45678", id="no telephone"),
        pytest.param("850101-1234567", "<NATIONAL_ID>", id="resident registration"),
        pytest.param("851301-1234567, 850101-9234567", "851301-1234567, 850101-9234567", id="no month, no century"),
        pytest.param("서울특별시 강남구 테헤란로 152에", "<ADDRESS>에", id="address by street"),
        pytest.param("서울의 길 이름", "서울의 길 이름", id="no address"),
    ],
)
def test_personal_data_of_korea(text, masked):
    assert edit([text], KO.edits["pii"])[0] == [masked]
