"""hojichar's filters nearest to our Japanese rules; run by the peer's own interpreter (bench/clean.py).

python hojichar_clean.py TEXTS.jsonl SIZES     (SIZES: how many sizes of character n-grams, 1 or 9)
"""

import json
import sys
import time
from pathlib import Path

from hojichar import Compose, Document, document_filters

WARM_UP = 20
NGRAMS = {1: (5,), 9: (2, 3, 4, 5, 6, 7, 8, 9, 10)}


def main() -> None:
    path, sizes = sys.argv[1:]
    filters = Compose(
        [
            document_filters.DocumentNormalizer(),
            document_filters.DocumentLengthFilter(min_doc_len=400, max_doc_len=1_000_000),
            document_filters.AcceptJapanese(),
            document_filters.DiscardRareKuten(max_average_sentence_length=90),
            document_filters.DiscardTooManyEndingEllipsis(threshold=0.2),
            document_filters.DiscardTooShortLines(),
            *(document_filters.CharRepetitionRatioFilter(ngram_size=size) for size in NGRAMS[int(sizes)]),
        ]
    )
    texts = [json.loads(line)["text"] for line in Path(path).read_text(encoding="utf-8").splitlines()]
    for text in texts[:WARM_UP]:
        filters.apply(Document(text))
    began = time.process_time()
    kept = [index for index, text in enumerate(texts) if not filters.apply(Document(text)).is_rejected]
    print(json.dumps({"cpu_s": round(time.process_time() - began, 4), "kept": kept}))


if __name__ == "__main__":
    main()
