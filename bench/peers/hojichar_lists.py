"""hojichar's NG words and masking; run by the peer's own interpreter (bench/corpus_parts/words.py and pii.py).

python hojichar_lists.py FILTER TEXTS.jsonl     (FILTER: DiscardAdultContentJa or MaskPersonalInformation)
"""

import json
import sys
import time
from pathlib import Path

import hojichar
from hojichar import Document, document_filters

WARM_UP = 8


def main() -> None:
    applied = getattr(document_filters, sys.argv[1])()
    texts = [json.loads(line)["text"] for line in Path(sys.argv[2]).read_text(encoding="utf-8").splitlines()]
    for text in texts[:WARM_UP]:
        applied.apply(Document(text))
    began = time.process_time()
    kept = [index for index, text in enumerate(texts) if not applied.apply(Document(text)).is_rejected]
    seconds = time.process_time() - began
    size = sum(len(text.encode()) for text in texts) / 1e6
    words = Path(hojichar.__file__).parent / "dict" / "adult_keywords_ja.txt"
    print(json.dumps({"cpu_s": seconds, "megabytes": size, "kept": kept, "words": str(words)}))


if __name__ == "__main__":
    main()
