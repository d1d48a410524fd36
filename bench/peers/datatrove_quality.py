"""datatrove's Gopher rules on Japanese words; run by the peer's own interpreter (bench/corpus_parts/filters.py).

python datatrove_quality.py TEXTS.jsonl
"""

import json
import sys
import time
from pathlib import Path

from datatrove.data import Document
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.utils.typeshelper import Languages

WARM_UP = 2


def main() -> None:
    filters = [GopherRepetitionFilter(language=Languages.japanese), GopherQualityFilter(language=Languages.japanese)]
    texts = [json.loads(line)["text"] for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
    documents = [Document(text=text, id=str(index)) for index, text in enumerate(texts)]
    for document in documents[:WARM_UP]:
        for each in filters:
            each.filter(document)
    began = time.process_time()
    answers = [[each.filter(document) for each in filters] for document in documents]
    seconds = time.process_time() - began
    kept = [index for index, found in enumerate(answers) if all(answer is True for answer in found)]
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(json.dumps({"cpu_s": seconds, "megabytes": size, "kept": kept}))


if __name__ == "__main__":
    main()
