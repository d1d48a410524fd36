"""Run by .venv-vllm's Python: the logits of what transformers reads from a GGUF file, in float32.

python gguf_oracle.py FILE.gguf TOKENS.json LOGITS.npy

`from_pretrained(gguf_file=...)` wants a package (accelerate) that is not there; this is what it calls.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint


def main(file: Path, tokens: Path, logits: Path) -> None:
    torch.set_num_threads(2)
    config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    absent = model.load_state_dict(tensors, strict=False)
    assert not absent.unexpected_keys
    assert set(absent.missing_keys) <= {"lm_head.weight"}
    with torch.no_grad():
        np.save(logits, model(torch.tensor([json.loads(tokens.read_text())]), use_cache=False).logits[0].numpy())


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
