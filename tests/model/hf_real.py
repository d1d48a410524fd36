"""Run by .venv-vllm's Python: what transformers makes of a real checkpoint in float32.

python hf_real.py MODEL_DIR SPEC.json ANSWERS.json
"""

import json
import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main(model_dir: str, spec: str, answers: str) -> None:
    asked = json.loads(Path(spec).read_text())
    torch.set_num_threads(2)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager").eval()
    options = {"max_new_tokens": asked["new_tokens"], "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    greedy, nats = [], []
    with torch.no_grad():
        for prompt in asked["prompts"]:
            ids = torch.tensor([prompt])
            found = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
            greedy.append(found[0, len(prompt) :].tolist())
        for text in asked["texts"]:
            ids = torch.tensor([text])
            nats.append(float(model(ids, labels=ids).loss))
    Path(answers).write_text(json.dumps({"greedy": greedy, "loss": nats}))


if __name__ == "__main__":
    main(*sys.argv[1:])
