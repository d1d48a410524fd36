"""Run by .venv-vllm's Python: a random model by transformers, its weights, logits, gradients and greedy tokens.

python hf_oracle.py OUT_DIR     reads OUT_DIR/spec.json, writes beside it
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func


def total_weight(spec: dict) -> float:
    return sum(sum(segment["weights"]) for segment in spec["segments"])


def router_loss(logits: torch.Tensor, config: transformers.PretrainedConfig) -> torch.Tensor:
    """Both losses of one layer's router, the first by transformers' own function, as means over tokens."""
    balance = load_balancing_loss_func((logits,), config.num_local_experts, config.num_experts_per_tok)
    z = torch.logsumexp(logits, dim=-1).square().mean()
    return config.router_aux_loss_coef * balance + config.router_z_loss_coef * z


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

    has_experts = hasattr(config, "num_local_experts")
    options = {"use_cache": False} | ({"output_router_logits": True} if has_experts else {})
    logits, loss, routers = [], torch.zeros(()), []
    for segment in spec["segments"]:
        answer = model(torch.tensor([segment["tokens"]]), **options)
        scores = answer.logits[0]
        logits.append(scores.detach().numpy())
        routers.append(answer.router_logits if has_experts else ())
        nll = torch.nn.functional.cross_entropy(scores, torch.tensor(segment["targets"]), reduction="none")
        loss = loss + (nll * torch.tensor(segment["weights"])).sum()
    for layer in zip(*routers, strict=True):  # router logits of one layer, segment by segment
        loss = loss + router_loss(torch.cat(layer), config) * total_weight(spec) / config.num_hidden_layers
    loss.backward()
    np.save(out / "logits.npy", np.concatenate(logits))

    greedy = []
    for prompt in spec["prompts"]:
        options = {"max_new_tokens": spec["new_tokens"], "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        with torch.no_grad():
            greedy.append(model.generate(torch.tensor([prompt]), **options)[0, len(prompt) :].tolist())
    (out / "answers.json").write_text(json.dumps({"loss": float(loss.detach()), "greedy": greedy}))

    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.grad)
    model.save_pretrained(out / "gradients")  # by the names of a checkpoint, which experts do not have in memory


if __name__ == "__main__":
    main(Path(sys.argv[1]))
