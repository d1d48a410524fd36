"""transformers' view of a released directory. Run as a script by the Python of .venv-vllm, never imported:

    .venv-vllm/bin/python tasks/release/oracle.py REQUEST.json ANSWER.npz

REQUEST.json is {directory, max_new_tokens, prompts: [{ids, text | messages}]}. ANSWER.npz holds for each prompt i
`ids_i` (what transformers' own tokenizer and chat template make of it), `greedy_i` (its greedy tokens after the given
ids) and `logits_i` ([tokens, vocabulary], float32, the logits that chose each of them), and `facts` (JSON: versions).
Everything is computed in float32 on the CPU with eager attention: Gemma 2 needs the attention soft cap.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def main(request_path: str, answer_path: str) -> None:
    """Answer one request."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    request = json.loads(Path(request_path).read_text("utf-8"))
    directory = request["directory"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    # Greedy, and no end of text: all tokens are compared, past the end of an answer too.
    model.generation_config = transformers.GenerationConfig(do_sample=False, pad_token_id=tokenizer.pad_token_id)
    arrays: dict[str, Any] = {}
    with torch.inference_mode():
        for i, prompt in enumerate(request["prompts"]):
            if "messages" in prompt:
                ids = tokenizer.apply_chat_template(
                    prompt["messages"], add_generation_prompt=True, return_dict=False, tokenize=True
                )
            else:
                ids = tokenizer(prompt["text"])["input_ids"]
            out = model.generate(
                torch.tensor([prompt["ids"]]),
                attention_mask=torch.ones(1, len(prompt["ids"]), dtype=torch.long),
                max_new_tokens=request["max_new_tokens"],
                output_logits=True,
                return_dict_in_generate=True,
            )
            arrays[f"ids_{i}"] = np.asarray(ids, np.int64)
            arrays[f"greedy_{i}"] = out.sequences[0, len(prompt["ids"]) :].numpy()
            arrays[f"logits_{i}"] = torch.cat(out.logits).float().numpy()
    facts = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "dtype": "float32",
        "attention": "eager",
        "model_class": type(model).__name__,
        "tokenizer_class": type(tokenizer).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    np.savez(answer_path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8), **arrays)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
