"""Model families as data: one file each with sizes, weight names, Hugging Face config and chat facts."""

from dataclasses import replace
from types import ModuleType
from typing import Any

from model.config import DecoderConfig
from model.families import gemma2, gemma3, llama3, moe

FAMILIES: dict[str, ModuleType] = {
    "gemma2": gemma2,
    "gemma3": gemma3,
    "llama3": llama3,
    "moe": moe,
}


def decoder_config(name: str, **changes: Any) -> DecoderConfig:
    """The config of `family/size`, for example gemma2/9b, with some fields replaced."""
    family, _, size = name.partition("/")
    if family not in FAMILIES or size not in FAMILIES[family].SIZES:
        known = [f"{f}/{s}" for f, module in FAMILIES.items() for s in module.SIZES]
        raise ValueError(
            f"model={name!r} is not a known family/size: shapes are published facts, kept in model/families. "
            f"Choose one of {', '.join(known)}."
        )
    return replace(FAMILIES[family].SIZES[size], **changes)
