"""What looks like a credential does not come through."""

import pytest

from tasks.redaction import redact


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abcdef123456", "abcdef123456"),
        ('{"api_key": "abc-def-ghi"}', "abc-def-ghi"),
        ("got sk-proj-abcdefgh12345678 from you", "abcdefgh12345678"),
        ("http://user:hunter2@host/v1", "hunter2"),
        ("hf_abcdefghijklmnop", "abcdefghijklmnop"),
        ("password=tr0ub4dor", "tr0ub4dor"),
    ],
)
def test_credentials_are_hidden(text, secret):
    assert secret not in redact(text)


def test_a_known_secret_is_hidden_wherever_it_stands():
    assert redact("x plain-word y", "plain-word") == "x *** y"


def test_ordinary_errors_stay_readable():
    message = "HTTP 400: This model's maximum context length is 2048 tokens, you asked for 4096 tokens."
    assert redact(message, "") == message
