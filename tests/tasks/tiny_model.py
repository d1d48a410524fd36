"""A Hugging Face directory with a tiny random Gemma 2 and a tokenizer learnt from the texts below, made in a second."""

import functools
import random
from pathlib import Path

import jax
from flax import nnx

from model.config import DecoderConfig
from model.convert import save_hf
from model.decoder import Decoder
from model.families import decoder_config
from tasks.pack.tokenizer import files_of, learn, lines_of

NOUNS = {
    "en": ["package", "kernel", "user", "file", "archive", "maintainer", "system", "release", "policy", "mirror"],
    "ja": [
        "パッケージ",
        "カーネル",
        "利用者",
        "ファイル",
        "書庫",
        "保守担当者",
        "システム",
        "公開版",
        "方針",
        "ミラー",
    ],
}
VERBS = {
    "en": ["installs", "removes", "checks", "builds", "signs"],
    "ja": ["導入します", "削除します", "確認します", "構築します", "署名します"],
}


def text(language: str, seed: int, sentences: int = 12) -> str:
    """Sentences drawn by the seed."""
    draw = random.Random(f"{language}{seed}")
    made = []
    for _ in range(sentences):
        first, second = draw.choice(NOUNS[language]), draw.choice(NOUNS[language])
        verb = draw.choice(VERBS[language])
        number = draw.randrange(1000)
        made.append(
            f"The {first} {verb} the {second} {number}." if language == "en" else f"{first}は{second}{number}を{verb}。"
        )
    return (" " if language == "en" else "").join(made)


def shape(**changes: object) -> DecoderConfig:
    """Four heads of 32 (vLLM's smallest), a window shorter than the context, both caps on."""
    sizes = {
        "vocab_size": vocab_size(),
        "embed_dim": 64,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 32,
        "mlp_dim": 128,
        "max_seq_len": 128,
        "local_window": 32,
        "query_scale": 32**-0.5,
    }
    return decoder_config("gemma2/tiny", **(sizes | changes))


def vocab_size() -> int:
    return 512


@functools.cache
def tokenizer_files() -> dict[str, bytes]:
    """The files of a tokenizer for both languages."""
    texts = [text(language, seed) for language in ("en", "ja") for seed in range(60)]
    return files_of(learn(lines_of(texts), vocab_size=vocab_size(), character_coverage=1.0))


def decoder(seed: int = 0, scale: float = 4.0, cfg: DecoderConfig | None = None) -> Decoder:
    """Random weights, the matrices scaled up so that logits differ clearly between tokens."""
    model = Decoder(cfg or shape(), rngs=nnx.Rngs(seed))
    graph, state = nnx.split(model)
    state = jax.tree.map(lambda x: x * scale if x.ndim > 2 else x, state)
    return nnx.merge(graph, state)


def write(directory: Path, seed: int = 0, model: Decoder | None = None) -> Path:
    """The directory: config.json, float32 safetensors, tokenizer files, chat template."""
    directory.mkdir(parents=True, exist_ok=True)
    save_hf(model or decoder(seed), directory, dtype="float32")
    for name, data in tokenizer_files().items():
        (directory / name).write_bytes(data)
    return directory
