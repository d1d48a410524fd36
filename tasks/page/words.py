"""How numbers and untrusted words are written on the page."""

import re
import unicodedata

_BREAKS = re.compile(r"\n(?:[ \t\u3000]*\n){4,}")
_SPACES = re.compile(r" {20,}")


def visible(text: object) -> str:
    """Untrusted text made harmless to the eye: control, direction-changing and unassigned characters are written out
    (⟨U+202E⟩), so that a page shows what is really there. Newlines and tabs stay."""
    return "".join(_shown(char) for char in str(text).replace("\r\n", "\n"))


def sample(text: str) -> str:
    """`visible`, with long runs of line breaks and of spaces counted instead of shown: small models love them."""
    text = _BREAKS.sub(lambda run: f"\n⟨{run[0].count(chr(10)):,} line breaks⟩\n", visible(text))
    return _SPACES.sub(lambda run: f" ⟨{len(run[0]):,} spaces⟩ ", text)


def figure(value: float) -> str:
    """A score with as many digits as a difference of interest has."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:,.0f}"


def _shown(char: str) -> str:
    if char in "\n\t":
        return char
    invisible = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return f"⟨U+{ord(char):04X}⟩" if invisible and char not in "\u200c\u200d" else char


def duration(seconds: float) -> str:
    """A time to two units: 8.4 s, 3 min 12 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def signed_percent(share: float) -> str:
    """A relative change with a real minus sign: −18.3 %."""
    return signed(share * 100, 1) + " %"


def signed(value: float, digits: int = 3) -> str:
    """A difference with its sign; zero has none."""
    text = f"{abs(value):,.{digits}f}"
    return text if float(text.replace(",", "")) == 0 else ("−" if value < 0 else "+") + text
