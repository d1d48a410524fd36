"""Run by .venv-vllm's Python: a checkpoint through transformers in bfloat16; one JSON line.

python transformers_convert.py SOURCE TARGET
"""

import json
import resource
import sys
import time

import torch
import transformers
from transformers import AutoModelForCausalLM


def main(source: str, target: str) -> None:
    torch.set_num_threads(2)
    start = time.perf_counter()
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(target)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"seconds": seconds, "peak_rss_gib": round(peak, 3), "transformers": transformers.__version__}))


if __name__ == "__main__":
    main(*sys.argv[1:])
