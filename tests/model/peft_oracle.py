"""Run by .venv-vllm's Python: adapters of ours over a base, by peft and torch's AdamW.

python peft_oracle.py OUT_DIR     reads OUT_DIR/base, OUT_DIR/adapter, OUT_DIR/spec.json; writes beside them
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM


def main(out: Path) -> None:
    spec = json.loads((out / "spec.json").read_text())
    torch.set_num_threads(1)
    base = AutoModelForCausalLM.from_pretrained(out / "base", dtype=torch.float32, attn_implementation="eager")
    model = PeftModel.from_pretrained(base, out / "adapter", is_trainable=True).train()
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), lr=spec["lr"], betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    tokens, targets = torch.tensor(spec["tokens"]), torch.tensor(spec["targets"])
    losses = []
    for step in range(spec["steps"]):
        scores = model(tokens, use_cache=False).logits
        if step == 0:
            np.save(out / "logits.npy", scores.detach().numpy())
        loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), targets.flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_file({name: p.detach().contiguous() for name, p in trained.items()}, out / "after.safetensors")
    (out / "losses.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
