"""A trained state to the directory that transformers, vLLM and the next stage read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from model.config import DecoderConfig
from model.convert import save_hf
from model.loop import TrainState, join_model
from model.lora import merged
from model.peft import save_adapters
from tasks.tokens import TOKENIZER_FILES, TextTokenizer
from tasks.train.journal import lasting
from tasks.train.run import RunSpec


def export(
    spec: RunSpec, cfg: DecoderConfig, state: TrainState, tokenizer: TextTokenizer, ledger: dict[str, Any]
) -> None:
    """Write `result/`: model/, metrics.jsonl, token_ledger.json. It appears when all of it is there.

    Adapters are added to the weights of model/; adapter/ has them alone, for peft.

    Of several trainers of a run all must call it; the first writes. The same state gives the same bytes:
    times are left out.
    """
    partial = spec.result.with_name("result.partial")
    model_dir = partial / "model"
    if jax.process_index() == 0:
        shutil.rmtree(partial, ignore_errors=True)
        model_dir.mkdir(parents=True)
    marks: dict[str, Any] = {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": tokenizer.eos_id,
        "pad_token_id": tokenizer.pad_id,
    }
    weights = state.weights
    if cfg.lora is not None:
        save_adapters(state.params, cfg, partial / "adapter")
        weights, cfg = merged(weights, cfg.lora), replace(cfg, lora=None)
    save_hf(join_model(cfg, weights), model_dir, dtype=spec.config.export_dtype, hf_config=marks)
    if jax.process_index():
        return
    # A chat model ends its turn, a base model its document.
    if spec.config.kind == "sft":
        marks["eos_token_id"] = [tokenizer.eos_id, tokenizer.end_of_turn_id]
    _write_json(model_dir / "generation_config.json", marks)
    for name in TOKENIZER_FILES:
        if (spec.tokenizer_dir / name).is_file():
            shutil.copyfile(spec.tokenizer_dir / name, model_dir / name)
    if spec.config.kind == "sft" and tokenizer.chat_template is not None:
        # A base model's tokenizer often has none; a server must ask as this model was taught.
        (model_dir / "chat_template.jinja").write_text(tokenizer.chat_template, "utf-8")
    (partial / "metrics.jsonl").write_text(lasting(spec.metrics))
    _write_json(partial / "token_ledger.json", ledger)
    partial.rename(spec.result)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
