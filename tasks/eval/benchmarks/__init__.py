"""Benchmarks by name: a file each, a line each."""

from tasks.eval.benchmarks import bits_per_byte, continuation, instructions
from tasks.eval.requests import Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    "bits_per_byte": bits_per_byte,
    "continuation": continuation,
    "instructions": instructions,
}
