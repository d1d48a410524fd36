"""Train a tiny Gemma 2 on its own source code, byte by byte, and let it write. CPU, about a minute.

    python examples/train_tiny.py --steps 60

Shows the whole of `model/`: a config, a step, a checkpoint, a Hugging Face directory, and generation.
"""

import argparse
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from model.checkpoint import Checkpoints
from model.config import ComputeConfig, OptimizerConfig
from model.convert import load_hf, save_hf
from model.families import decoder_config
from model.generate import bits_per_byte, generate, sequence_nats
from model.loop import init_state, join_model, make_train_step
from model.losses import packed_batch

BOS, FIRST_BYTE, VOCAB = 2, 4, 260  # pad eos bos unk, then the 256 bytes


def encode(text: str) -> list[int]:
    return [FIRST_BYTE + byte for byte in text.encode()]


def decode(tokens: list[int]) -> str:
    return bytes(token - FIRST_BYTE for token in tokens if token >= FIRST_BYTE).decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rows", type=int, default=8, help="sequences of 128 tokens in a batch")
    args = parser.parse_args()

    sources = sorted((Path(__file__).parents[1] / "model").rglob("*.py"))
    tokens = np.array(encode("\n".join(path.read_text() for path in sources)), np.int32)
    train, heldout = tokens[:-2000], [BOS, *tokens[-2000:].tolist()]

    compute = ComputeConfig(scan_layers=False, cpu_kernels=jax.default_backend() == "cpu")
    cfg = decoder_config("gemma2/tiny", vocab_size=VOCAB, num_layers=2, compute=compute)
    optimizer = OptimizerConfig(peak_lr=3e-3, total_steps=args.steps, warmup_steps=min(5, args.steps - 1))
    state, step = init_state(cfg, optimizer), make_train_step(cfg, optimizer)

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch, Checkpoints(f"{scratch}/run") as checkpoints:
        begin = time.perf_counter()
        for number in range(1, args.steps + 1):
            starts = rng.integers(0, len(train) - 129, args.rows)
            state, metrics = step(state, packed_batch(np.stack([train[at : at + 129] for at in starts])))
            if number % 10 == 0 or number == args.steps:
                rate = number * args.rows * 128 / (time.perf_counter() - begin)
                print(f"step {number:4}  loss {float(metrics['loss']):.3f}  {rate:,.0f} tokens/s", flush=True)
        checkpoints.save(args.steps, state, {"examples": args.steps * args.rows})

        save_hf(join_model(cfg, state.params), f"{scratch}/hf", dtype="float32")
        model = load_hf(f"{scratch}/hf")
        nats = sequence_nats(model, [heldout], window=128)[0]
        print(f"held-out text: {bits_per_byte(nats, len(heldout) - 1):.2f} bits per byte (8 before training)")
        prompts = ["def ", "import "]
        answers = generate(model, [[BOS, *encode(p)] for p in prompts], max_new_tokens=60, temperature=0.7)
        for prompt, answer in zip(prompts, answers, strict=True):
            print(repr(prompt + decode(answer)))


if __name__ == "__main__":
    main()
