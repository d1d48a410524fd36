"""Run by .venv-vllm's Python: what transformers makes of logits before it draws.

python hf_sampling.py IN.npz SETTINGS.json OUT.npy      IN holds logits [B, V] and tokens [B, T]; one setting a row
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM


def main(inputs: str, settings: str, out: str) -> None:
    given = np.load(inputs)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=8, **sizes))
    rows = []
    for logits, tokens, setting in zip(
        given["logits"], given["tokens"], json.loads(Path(settings).read_text()), strict=True
    ):
        # transformers decides itself which processors there are, and in which order.
        config = GenerationConfig(do_sample=True, **setting)
        processors = model._get_logits_processor(config, input_ids_seq_length=len(tokens))
        rows.append(processors(torch.tensor(tokens)[None], torch.tensor(logits)[None])[0].numpy())
    np.save(out, np.stack(rows))


if __name__ == "__main__":
    main(*sys.argv[1:])
