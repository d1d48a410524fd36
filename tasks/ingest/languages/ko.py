"""Korean: the proof that a language is this file and one line in LANGUAGES."""

from tasks.ingest.edits.footer import FooterRules
from tasks.ingest.edits.pii import PiiRules
from tasks.ingest.edits.pii_patterns import DIGIT, EVERYWHERE, SECRETS, PiiPattern
from tasks.ingest.edits.repair import RepairRules
from tasks.ingest.filters.duplication import DuplicationRules
from tasks.ingest.filters.garbled import GarbledRules
from tasks.ingest.filters.length import LengthRules
from tasks.ingest.filters.script import ScriptRules
from tasks.ingest.filters.word_ngrams import WordNgramRules
from tasks.ingest.filters.words import WordRules
from tasks.ingest.languages.pack import PAGES, LanguagePack, tidy

HANGUL = ((0x1100, 0x11FF), (0x3131, 0x318E), (0xA960, 0xA97C), (0xAC00, 0xD7A3), (0xD7B0, 0xD7FB))
SOUTH_KOREA = (
    PiiPattern(  # mobile, Seoul, other areas, internet and free numbers
        kind="phone",
        digits=9,
        hint=rf"[0０]{DIGIT}{{1,2}}[^\n]{{1,2}}{DIGIT}{{3,4}}[^\n]{DIGIT}{{4}}",
        pattern=r"0(?<![\d+.-]0)(?:1[016789]|2|[3-6]\d|70|80)[-). ] ?\d{3,4}[-. ]\d{4}(?!\d|-\d)",
    ),
    PiiPattern(  # resident registration: date of birth, century and sex; since 2020 without a check digit
        kind="national_id",
        digits=13,
        hint=rf"{DIGIT}{{6}}[^\n][1-8１-８]{DIGIT}{{6}}",
        pattern=r"\d(?<![\d-]\d)\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])-[1-8]\d{6}(?!\d|-\d)",
    ),
    PiiPattern(  # by street, as all addresses are since 2014
        kind="address",
        digits=1,
        letters="로길",
        hint=rf"[로길][^\n]?{DIGIT}",
        pattern=r"(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충청|충북|충남|전라|전북|전남|경상|경북|경남|제주)"
        r"[가-힣]{0,6} ?(?:[가-힣]{1,6}[시군구] ?){1,2}(?:[가-힣]{1,6}[읍면] ?)?"
        r"[가-힣\d]{1,12}[로길] ?\d{1,4}(?:-\d{1,4})?",
    ),
)

PACK = LanguagePack(
    code="ko",
    name="Korean",
    content_types=PAGES,
    label="ko",
    normalise=tidy,  # NFC composes jamo to syllables
    filters={
        "length": LengthRules(min_chars=200),
        "script": ScriptRules(letters=HANGUL, min_letters=150),
        "garbled": GarbledRules(),
        # Gopher's rules for words of Korean, which hold their particles and are half as long as English ones.
        "words": WordRules(
            min_mean_word_chars=1.5,
            max_mean_word_chars=8,
            stop_words=("수", "및", "있는", "이", "그", "등", "것", "것이", "한", "위해", "대한", "있다", "있습니다"),
        ),
        "duplication": DuplicationRules(max_blocks=0.30, max_block_chars=0.20),
        "word_ngrams": WordNgramRules(),
    },
    edits={
        "repair": RepairRules(half_width=False),
        "footer": FooterRules(keywords="footer-ko"),
        "pii": PiiRules(patterns=(*EVERYWHERE, *SECRETS, *SOUTH_KOREA)),
    },
)
