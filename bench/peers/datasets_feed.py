"""The peer of `bench.feed`: Hugging Face datasets, streaming, by the way of transformers' language-modelling example.

    python datasets_feed.py FOLDER TOKENIZER LENGTH ROWS

Text is tokenised in batches of 1,000 documents, joined end to end, cut into rows, and given out as batches of arrays.
Its example has a label for every token and no segments: less work than ours.
"""

import itertools
import json
import sys
import time
from pathlib import Path

import datasets
import transformers


def main(folder: Path, tokenizer_dir: str, length: int, rows: int) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_dir)
    tokenizer("温める")

    def tokenize(examples: dict) -> dict:
        return tokenizer(examples["text"])

    def group_texts(examples: dict) -> dict:
        joined = {name: list(itertools.chain(*values)) for name, values in examples.items()}
        total = len(next(iter(joined.values()))) // length * length
        result = {name: [v[i : i + length] for i in range(0, total, length)] for name, v in joined.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    stream = datasets.load_dataset("json", data_files=str(folder / "texts.jsonl"), split="train", streaming=True)
    stream = stream.map(tokenize, batched=True, remove_columns=["text"]).map(group_texts, batched=True)
    tokens = 0
    began = time.process_time()
    for batch in stream.with_format("numpy").iter(batch_size=rows):
        tokens += batch["input_ids"].size
    print("\n" + json.dumps({"cpu_s": time.process_time() - began, "tokens": tokens}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
