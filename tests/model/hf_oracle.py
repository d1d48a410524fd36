"""Run by .venv-vllm's Python: a random model by transformers, its weights, logits, gradients and greedy tokens.

python hf_oracle.py OUT_DIR     reads OUT_DIR/spec.json, writes beside it
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import save_file


def main(out: Path) -> None:
    spec = json.loads((out / "spec.json").read_text())
    torch.manual_seed(0)
    torch.set_num_threads(2)
    kind = getattr(transformers, spec["architecture"])
    config = kind.config_class(**spec["config"], attn_implementation="eager")
    model = kind(config).float().eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            # A small embedding lets the layers decide the next token, rather than the token before it.
            std = 0.3 if "norm" in name else 0.1 if "embed" in name else spec["std"]
            mean = spec["norm_mean"] if "norm" in name else 0.0
            weight.copy_(mean + torch.randn_like(weight) * std)
    model.save_pretrained(out / "float32")
    model.bfloat16().save_pretrained(out / "bfloat16")
    model = kind.from_pretrained(out / "float32", dtype=torch.float32, attn_implementation="eager").eval()

    logits, loss = [], torch.zeros(())
    for segment in spec["segments"]:
        tokens = torch.tensor([segment["tokens"]])
        scores = model(tokens, use_cache=False).logits[0]
        logits.append(scores.detach().numpy())
        nll = torch.nn.functional.cross_entropy(scores, torch.tensor(segment["targets"]), reduction="none")
        loss = loss + (nll * torch.tensor(segment["weights"])).sum()
    loss.backward()
    np.save(out / "logits.npy", np.concatenate(logits))
    save_file({name: weight.grad for name, weight in model.named_parameters()}, out / "gradients.safetensors")

    greedy = []
    for prompt in spec["prompts"]:
        options = {"max_new_tokens": spec["new_tokens"], "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        with torch.no_grad():
            greedy.append(model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist())
    (out / "answers.json").write_text(json.dumps({"loss": float(loss.detach()), "greedy": greedy}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
