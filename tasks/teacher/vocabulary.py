"""A Hugging Face fast tokenizer from the vocabulary inside a GGUF file; the ids are the file's own.

Two kinds exist: `gpt2` (byte-level BPE, with its merges) and `llama` (SentencePiece BPE with byte fallback, whose
merges follow from the scores). Ids were compared with a published tokenizer of the same model: equal on all texts.
"""

from collections.abc import Sequence
from typing import Any

from model.gguf import Metadata

CONTROL, USER_DEFINED = 3, 4  # GGUF token types
SPACE = "▁"


def tokenizer_files(metadata: Metadata) -> dict[str, Any]:
    """`tokenizer.json` and `tokenizer_config.json` as JSON-able objects.

    Raises:
        ValueError: a kind of vocabulary that is not known here.
    """
    kind = metadata["tokenizer.ggml.model"]
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if (kind, pre) not in KINDS:
        known = ", ".join(f"{model}/{name}" for model, name in KINDS)
        raise ValueError(
            f"vocabulary kind {kind}/{pre} is not one of {known}: how text is split before merging is not in the file, "
            "and a wrong guess gives other ids without an error. Add the kind to tasks/teacher/vocabulary.py."
        )
    tokenizer = KINDS[kind, pre](metadata)
    return {"tokenizer.json": tokenizer, "tokenizer_config.json": _tokenizer_config(metadata)}


def _byte_level(metadata: Metadata) -> dict[str, Any]:
    """Byte-level BPE of the SmolLM family: digits one by one, then GPT-2's split."""
    tokens = metadata["tokenizer.ggml.tokens"]
    model = {
        "type": "BPE",
        "unk_token": None,
        "byte_fallback": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return _tokenizer(
        metadata,
        model=model,
        normalizer=None,
        pre_tokenizer={"type": "Sequence", "pretokenizers": [digits, byte_level]},
        decoder=byte_level,
    )


def _sentencepiece(metadata: Metadata) -> dict[str, Any]:
    """SentencePiece BPE of the Gemma family: no split, spaces as ▁, unknown characters as bytes."""
    types = metadata["tokenizer.ggml.token_type"]
    # Runs of spaces are stored as spaces in the file but matched after the normalizer, as ▁.
    tokens = [
        text.replace(" ", SPACE) if kind != CONTROL else text
        for text, kind in zip(metadata["tokenizer.ggml.tokens"], types, strict=True)
    ]
    model = {
        "type": "BPE",
        "unk_token": "<unk>",
        "fuse_unk": True,
        "byte_fallback": True,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges_from_scores(tokens, metadata["tokenizer.ggml.scores"], types),
    }
    back = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    return _tokenizer(
        metadata,
        model=model,
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
        pre_tokenizer={
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        decoder={"type": "Sequence", "decoders": [back, {"type": "ByteFallback"}, {"type": "Fuse"}]},
    )


def merges_from_scores(tokens: Sequence[str], scores: Sequence[float], types: Sequence[int]) -> list[list[str]]:
    """BPE merges of a SentencePiece vocabulary: every split of a piece into two pieces, best score first.

    User-defined runs (of spaces, tabs, line ends) come first, the longest left part first, then pieces by score;
    within a piece the longest left part first.
    """
    known = set(tokens)
    runs: list[tuple[str, str]] = []
    pieces: list[tuple[float, int, str, str]] = []
    for index, token in enumerate(tokens):
        if types[index] not in (1, USER_DEFINED):
            continue
        for cut in range(len(token) - 1, 0, -1):
            left, right = token[:cut], token[cut:]
            if left in known and right in known:
                if types[index] == USER_DEFINED:
                    runs.append((left, right))
                else:
                    pieces.append((-scores[index], index, left, right))
    runs.sort(key=lambda pair: (-len(pair[0]), -len(pair[1])))
    pieces.sort(key=lambda merge: merge[:2])  # stable: the longest left part stays first
    return [list(pair) for pair in runs] + [[left, right] for _, _, left, right in pieces]


def _tokenizer(metadata: Metadata, **parts: Any) -> dict[str, Any]:
    tokens, types = metadata["tokenizer.ggml.tokens"], metadata["tokenizer.ggml.token_type"]
    added = [
        {
            "id": index,
            "content": tokens[index].replace(" ", SPACE) if kind == USER_DEFINED else tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for index, kind in enumerate(types)
        if kind in (CONTROL, USER_DEFINED)
    ]
    post = None
    if metadata.get("tokenizer.ggml.add_bos_token"):
        bos_id = metadata["tokenizer.ggml.bos_token_id"]
        bos = tokens[bos_id]
        first = {"SpecialToken": {"id": bos, "type_id": 0}}
        post = {
            "type": "TemplateProcessing",
            "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                first,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": bos, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {bos: {"id": bos, "ids": [bos_id], "tokens": [bos]}},
        }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "post_processor": post,
        **parts,
    }


def _tokenizer_config(metadata: Metadata) -> dict[str, Any]:
    tokens = metadata["tokenizer.ggml.tokens"]
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it stands
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token")),
    }
    for role, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        index = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if index is not None:
            config[f"{role}_token"] = tokens[index]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = template
    return config


KINDS = {
    ("gpt2", "smollm"): _byte_level,
    ("llama", "default"): _sentencepiece,
}
