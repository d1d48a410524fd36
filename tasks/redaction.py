"""Secrets never reach a log, an error or a record."""

import re

_PATTERNS = (
    (re.compile(r"(?i)\b(bearer|basic|token)\s+[\w\-.~+/=]{6,}"), r"\1 ***"),
    (
        re.compile(
            r"(?i)((?:api|access|secret|auth)[-_ ]?(?:key|token)|authorization|password|passwd)(\W{1,4})[^\s\"',}]+"
        ),
        r"\1\2***",
    ),
    (re.compile(r"\b(?:sk|pk|hf|gsk|ghp|xoxb)[-_][\w\-]{8,}"), "***"),
    (re.compile(r"://[^/\s:@]+:[^/\s@]+@"), "://***@"),
)


def redact(text: str, *secrets: str) -> str:
    """The text without what looks like a credential, and without the given secrets wherever they stand."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text
