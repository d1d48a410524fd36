"""An embedder for tests, with the protocol of paraphrase.py: how often each of a few words occurs in a text."""

import json
import sys

WORDS = ("cat", "dog", "猫", "犬", "the")
SAME = {"猫": "cat", "犬": "dog"}  # so that a translation has the same vector

for line in sys.stdin:
    text = json.loads(line)
    for word, other in SAME.items():
        text = text.replace(word, other)
    if "break" in text:
        print("no numbers", flush=True)
    elif "leave" in text:
        sys.exit(3)
    else:
        print(json.dumps([text.count(word) for word in WORDS] + [0.01]), flush=True)
