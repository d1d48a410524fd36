"""The peer of `bench.train_step`: transformers' decoder trained by PyTorch.

    python torch_step.py FOLDER STEPS eager|compiled

bfloat16 by autocast, fused AdamW, foreach clipping, no dropout, no cache. SDPA where the model allows it: it
knows no soft cap (transformers would leave the cap out), and flex_attention has no backward pass on CPUs.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from meter import WARM_UP, Meter
from transformers import AutoModelForCausalLM


def main(folder: Path, steps: int, mode: str) -> None:
    settings = json.loads((folder / "settings.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager" if settings["attn_softcap"] else "sdpa"
    )
    model.train()
    rows = torch.from_numpy(np.load(folder / "rows.npy")).long()
    tokens, targets = rows[:, :-1].contiguous(), rows[:, 1:].reshape(-1)
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": settings["weight_decay"]},
            {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
        ],
        lr=settings["peak_lr"],
        betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"],
        fused=True,
    )

    def loss_of(tokens: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logits = model(input_ids=tokens, use_cache=False).logits
        return torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]).float(), targets)

    if mode == "compiled":
        loss_of = torch.compile(loss_of, dynamic=False)

    def step() -> float:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(tokens, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"], foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    meter = Meter()
    for _ in range(WARM_UP + steps):
        meter.measure(step)
    meter.report()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
