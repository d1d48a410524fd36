"""hojichar's filters nearest to Swallow v1's rules; run by the peer's own interpreter (bench/corpus_parts/filters.py).

python hojichar_quality.py TEXTS.jsonl
"""

import json
import sys
import time
from pathlib import Path

from hojichar import Compose, Document, document_filters

WARM_UP = 8


def main() -> None:
    filters = Compose(
        [
            document_filters.DocumentLengthFilter(min_doc_len=400, max_doc_len=1_000_000),
            document_filters.AcceptJapanese(),
            document_filters.DiscardRareKuten(max_average_sentence_length=90),
            document_filters.DiscardTooManyEndingEllipsis(threshold=0.2),
            document_filters.DiscardTooShortLines(),
            *(document_filters.CharRepetitionRatioFilter(ngram_size=size) for size in range(2, 11)),
        ]
    )
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    for text in texts[:WARM_UP]:
        filters.apply(Document(text))
    began = time.process_time()
    kept = [index for index, text in enumerate(texts) if not filters.apply(Document(text)).is_rejected]
    seconds = time.process_time() - began
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(json.dumps({"cpu_s": seconds, "megabytes": size, "kept": kept}))


if __name__ == "__main__":
    main()
