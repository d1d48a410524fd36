"""Patterns of personal data and secrets, as data: those of every language here, those of a country in its pack.

They are matched against a line whose full-width digits, letters and spaces are ASCII, and in which a hyphen of any kind
between digits is `-`.
"""

import re
from collections.abc import Callable
from typing import Literal, Self, get_args

from pydantic import Field, model_validator

from tasks.config import StageConfig

Kind = Literal["email", "phone", "address", "national_id", "card", "secret"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_FILES = (
    "png",
    "jpg",
    "jpeg",
    "gif",
    "webp",
    "svg",
    "ico",
    "bmp",
    "pdf",
    "css",
    "js",
    "mp3",
    "mp4",
    "html",
)  # logo@2x.png
_EXAMPLES = (".example.com", ".example.net", ".example.org", ".example", ".test", ".invalid", ".localhost")
_JAPANESE_11_DIGITS = ("020", "050", "060", "070", "080", "090")


def _digits(match: str) -> str:
    return "".join(char for char in match if char.isascii() and char.isdigit())


def is_luhn(match: str) -> bool:
    """The check digit of payment cards (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(_digits(match))]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return 13 <= len(digits) <= 19 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def is_my_number(match: str) -> bool:
    """The check digit of Japan's Individual Number (Ministry ordinance no. 85 of 2014, article 5)."""
    digits = [int(char) for char in _digits(match)]
    weights = (6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2)
    rest = sum(digit * weight for digit, weight in zip(digits, weights, strict=False)) % 11
    return len(digits) == 12 and digits[-1] == (0 if rest <= 1 else 11 - rest)


def is_japanese_phone(match: str) -> bool:
    """Ten digits after the trunk prefix is counted, eleven of mobile, IP and pager numbers and of 0800."""
    digits = _digits(match)
    eleven = digits.startswith((*_JAPANESE_11_DIGITS, "0800"))
    return digits[0] == "0" and digits[1] != "0" and len(digits) == (11 if eleven else 10)


def is_international_phone(match: str) -> bool:
    """8 to 15 digits (E.164); one that is not grouped has at least 10, because +12345678 may be a sum."""
    digits = _digits(match)
    return (8 if re.search(r"\d[ .()-]", match) else 10) <= len(digits) <= 15


def is_email(match: str) -> bool:
    """The domain can be somebody's: not the suffix of a file, and not one that RFC 2606 keeps for examples."""
    domain = match.rpartition("@")[2].lower()
    return domain.rpartition(".")[2] not in _FILES and not f".{domain}".endswith(_EXAMPLES)


CHECKS: dict[str, Callable[[str], bool]] = {
    "luhn": is_luhn,
    "my_number": is_my_number,
    "japanese_phone": is_japanese_phone,
    "international_phone": is_international_phone,
    "email": is_email,
}


class PiiPattern(StageConfig):
    """One way in which personal data or a secret is written. The gates are cheap and say which lines are looked at."""

    kind: Kind = Field(description="What it is: names the placeholder and the column of counts.")
    pattern: str = Field(description="Regular expression; a group named `value` is what is masked, else all of it.")
    digits: int = Field(default=0, ge=0, description="Gate: fewest digits of a line that may hold it.")
    letters: str = Field(default="", description="Gate: one of these characters is in the line.")
    signs: tuple[str, ...] = Field(default=(), description="Gate: one of these strings is in the line.")
    hint: str = Field(
        default="",
        description="Gate for hyperscan, where it is installed: an expression of its dialect that every line with a "
        "match holds, whatever the width of its characters. Not needed beside signs.",
    )
    check: str = Field(default="", description="Proof that it is one: a function of CHECKS.")
    cues: tuple[str, ...] = Field(default=(), description="One of these words must be near, written small.")
    cue_chars: int = Field(default=40, ge=0, description="How near, in characters before and after.")
    whole_text: bool = Field(default=False, description="May span lines; needs signs.")

    @property
    def has_value(self) -> bool:
        """Only a part of a match is masked."""
        return "(?P<value>" in self.pattern

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        re.compile(self.pattern)
        if self.check and self.check not in CHECKS:
            raise ValueError(
                f"check={self.check!r} is not one of {', '.join(CHECKS)}: a check is a function of pii_patterns.py. "
                "Use one of these, or none."
            )
        if (self.whole_text and not self.signs) or not (self.digits or self.letters or self.signs):
            raise ValueError(
                f"pattern {self.pattern!r} has no gate{' of signs' if self.whole_text else ''}: without one every line "
                "of the corpus would be searched. Give signs, letters or digits that it always has."
            )
        return self


# `re` looks fast for a first character: what must not stand before a match is asked after it (`0(?<!\d0)`).
_ZERO = r"0(?:(?<![A-Za-z\d+.(-]0)|(?<=(?i:tel|fax)0))"
_OPEN_ZERO = r"\((?<![A-Za-z\d+.-]\()0"
_ENDS = r"(?!\d|[-]\d)"
# What may stand in a line for a character of its shadow.
DIGIT = "[0-9０-９]"
_GAP = r"[ \x{a0}\x{3000}\-‐‑‒–—―−ーｰ－]?"  # a blank or a hyphen
_MANY_DIGITS = rf"{DIGIT}(?:{_GAP}{DIGIT}){{11}}"
_LATIN = "A-Za-z0-9Ａ-Ｚａ-ｚ０-９"

EVERYWHERE = (
    PiiPattern(
        kind="email",
        letters="@＠",
        hint=rf"[{_LATIN}_.%+\-＿．％＋－][@＠][{_LATIN}]",
        pattern=r"[A-Za-z0-9_](?<![A-Za-z0-9._%+-][A-Za-z0-9_])[A-Za-z0-9._%+-]{0,63}@"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9])",
        check="email",
    ),
    PiiPattern(
        kind="phone",
        digits=8,
        letters="+＋",
        hint=rf"[+＋](?:[^\n]{{0,3}}{DIGIT}){{8}}",
        pattern=r"\+(?<![\w+)]\+)[1-9]\d{0,2}(?:[ .-]?\(?\d{1,4}\)?){2,5}(?!\d)",
        check="international_phone",
    ),
    PiiPattern(
        kind="card",
        digits=13,
        hint=_MANY_DIGITS,
        pattern=r"[2-6](?<![\d-]\d)(?:[ -]?\d){12,18}(?![ -]?\d)",
        check="luhn",
        cues=("カード", "クレジット", "card", "credit", "visa", "amex", "jcb", "카드"),
    ),
)
SECRETS = (
    PiiPattern(
        kind="secret",
        signs=(
            *("AKIA", "ASIA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AIza", "GOCSPX-"),
            *("xoxa-", "xoxb-", "xoxe-", "xoxp-", "xoxr-", "xoxs-", "hooks.slack.com", "sk-", "sk_live_", "rk_live_"),
            *("hf_", "npm_"),
        ),
        pattern=r"(?<![A-Za-z0-9_])(?:"
        r"(?:AKIA|ASIA)[A-Z2-7]{16}"  # AWS access key id
        r"|gh[oprsu]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}|glpat-[A-Za-z0-9_-]{20,64}"
        r"|AIza[A-Za-z0-9_-]{35}|GOCSPX-[A-Za-z0-9_-]{28}"  # Google
        r"|xox[abeprs]-[A-Za-z0-9-]{10,250}|hooks\.slack\.com/services/T\w{6,}/B\w{6,}/\w{20,}"  # Slack
        r"|sk-(?:proj-|ant-|or-v1-)?[A-Za-z0-9_-]{32,200}|[rs]k_live_[A-Za-z0-9]{24,99}"  # OpenAI and others, Stripe
        r"|hf_[A-Za-z]{34}|npm_[A-Za-z0-9]{36})(?![A-Za-z0-9])",
    ),
    PiiPattern(  # JSON Web Token: two parts of base64 JSON, and a signature
        kind="secret",
        signs=("eyJ",),
        pattern=r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10,4000}\.eyJ[A-Za-z0-9_-]{10,8000}\.[A-Za-z0-9_-]{10,4000}",
    ),
    PiiPattern(
        kind="secret",
        signs=("secret", "SECRET", "Secret"),
        pattern=r"(?i)aws_?secret_?(?:access_?)?key[\"']?\s{0,4}[:=]\s{0,4}[\"']?(?P<value>[A-Za-z0-9/+]{40})(?![\w/+=])",
    ),
    PiiPattern(  # with its end, or as far as its lines are base64
        kind="secret",
        signs=("PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"),
        pattern=r"-----BEGIN (?:[A-Z0-9]{1,20} ){0,3}PRIVATE KEY(?: BLOCK)?-----"
        r"(?:\s{0,8}(?!-----)[A-Za-z0-9+/=:,. -]{1,80})*"
        r"(?:\s{0,8}-----END [A-Z0-9 ]{0,60}PRIVATE KEY(?: BLOCK)?-----)?",
        whole_text=True,
    ),
)

_NUMBER = r"(?:\d{1,4}|[一二三四五六七八九十百]{1,4})"
_BLOCK = (
    rf"(?:{_NUMBER}丁目\s?{_NUMBER}(?:(?:番地?|-)の?\s?{_NUMBER}?号?)?(?:-{_NUMBER})?"
    rf"|{_NUMBER}番地?(?:の?{_NUMBER})?号?|{_NUMBER}(?:-{_NUMBER}){{1,3}}号?)"
)
_TOWN = r"[一-龥々ぁ-んァ-ヶー]"
_BUILDING = (
    r"(?: ?[^\s、。,()「」]{1,20}?(?:ビル|マンション|ハイツ|コーポ|アパート|荘|棟|号室|\d階|\dF))?(?: ?\d{1,4}号室?)?"
)
_PREFECTURE = (
    r"(?:北海道|東京都|京都府|大阪府"
    r"|青森県|岩手県|宮城県|秋田県|山形県|福島県|茨城県|栃木県|群馬県|埼玉県|千葉県|神奈川県|新潟県|富山県|石川県|福井県|山梨県"
    r"|長野県|岐阜県|静岡県|愛知県|三重県|滋賀県|兵庫県|奈良県|和歌山県|鳥取県|島根県|岡山県|広島県|山口県|徳島県|香川県|愛媛県"
    r"|高知県|福岡県|佐賀県|長崎県|熊本県|大分県|宮崎県|鹿児島県|沖縄県)"
)
_ADDRESS = rf"{_PREFECTURE} ?{_TOWN}{{1,10}}?[市区町村郡] ?{_TOWN}{{0,20}}? ?{_BLOCK}{_BUILDING}"
JAPAN = (
    PiiPattern(
        kind="phone",
        digits=10,
        hint=rf"[0０]{DIGIT}{{1,4}}[^\n]{{1,2}}{DIGIT}{{1,4}}[^\n]{{1,2}}{DIGIT}{{3}}",
        pattern=rf"(?:{_OPEN_ZERO}\d{{1,4}}\)|{_ZERO}\d{{1,4}}[-(]) ?\d{{1,4}}[-)] ?\d{{3,4}}{_ENDS}",
        check="japanese_phone",
    ),
    PiiPattern(
        kind="phone",
        digits=10,
        hint=rf"[0０]{DIGIT}{{1,4}}[^\n]?{DIGIT}{{1,4}}[^\n]?{DIGIT}{{4}}",
        pattern=rf"{_ZERO}\d{{1,4}}[ .]?\d{{1,4}}[ .]?\d{{4}}{_ENDS}",
        check="japanese_phone",
        cues=("電話", "携帯", "連絡先", "ファックス", "tel", "fax", "phone", "☎", "℡"),
        cue_chars=20,
    ),
    PiiPattern(
        kind="address",
        digits=7,
        letters="〒",
        hint="〒",
        pattern=rf"〒 ?\d{{3}}-?\d{{4}}(?!\d)(?:[ 、,]{{0,2}}{_ADDRESS})?",
    ),
    PiiPattern(kind="address", letters="都道府県", hint=_PREFECTURE, pattern=_ADDRESS),
    PiiPattern(
        kind="address",
        digits=2,
        letters="市区町村",
        hint=rf"[市区町村][^\n]{{1,20}}{DIGIT}",
        pattern=rf"[一-龥]{{1,5}}[市区町村]{_TOWN}{{1,20}}?\d{{1,4}}(?:丁目\d{{1,4}}番?|-\d{{1,4}})(?:-?\d{{1,4}}号?)?{_BUILDING}",
        cues=("住所", "所在地", "〒", "宛先", "お届け先"),
    ),
    PiiPattern(
        kind="national_id",
        digits=12,
        hint=_MANY_DIGITS,
        pattern=r"\d(?<![\d-]\d)\d{3}[ -]?\d{4}[ -]?\d{4}(?![ -]?\d)",
        check="my_number",
        cues=("マイナンバー", "個人番号", "my number", "mynumber"),
    ),
)
UNITED_STATES = (
    PiiPattern(
        kind="phone",
        digits=10,
        hint=rf"{DIGIT}{{3}}[^\n]{{1,2}}{DIGIT}{{3}}[^\n]{DIGIT}{{4}}",
        pattern=r"(?<![\w+.-])(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?!\w|-\d)",
    ),
    PiiPattern(
        kind="address",
        digits=6,
        hint=rf"[A-ZＡ-Ｚ]{{2}}[^\n]{DIGIT}{{5}}",
        pattern=r"(?<![\w-])\d{1,6} (?:[A-Z0-9][A-Za-z0-9.']{0,20} ){1,4}"
        r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Highway|Hwy)\b\.?"
        r"(?:,? (?:Apt|Suite|Ste|Unit|#)\.? ?\w{1,6})?"
        r",? (?:[A-Z][A-Za-z.']{1,20} ?){1,3}, ?[A-Z]{2} \d{5}(?:-\d{4})?\b",
    ),
    PiiPattern(
        kind="national_id",
        digits=9,
        hint=rf"{DIGIT}{{3}}[^\n]{DIGIT}{{2}}[^\n]{DIGIT}{{4}}",
        pattern=r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])",
        cues=("ssn", "social security"),
    ),
)
