"""The parts of the corpus benchmark. A new one is a file here with `run(options) -> Part`, and one line in PARTS."""

from collections.abc import Callable

from bench.corpus_parts import extract, filters, minhash, pii, pipeline, words
from bench.corpus_parts.part import Options, Part

PARTS: dict[str, Callable[[Options], Part]] = {
    "filters": filters.run,
    "words": words.run,
    "pii": pii.run,
    "minhash": minhash.run,
    "extract": extract.run,
    "pipeline": pipeline.run,
}
