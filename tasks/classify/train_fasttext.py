"""Train one fastText model and end. Run by .venv-classifier's Python, and by nothing else:

    python -I train_fasttext.py JOB.json

The package that can train owns the same module name as the one of .venv, which can only predict; so they never meet,
and this file imports nothing of ours. One thread: the same lines in the same order give the same model.
"""

import ctypes
import json
import os
import signal
import sys
import time
from importlib.metadata import version

_PR_SET_PDEATHSIG = 1


def main(job_path: str) -> None:
    """Read the job, train, save, and write what was made beside it."""
    with open(job_path, encoding="utf-8") as file:
        job = json.load(file)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != job["parent"]:
        raise SystemExit("the process that asked for this model is gone")
    import fasttext

    began = time.monotonic()
    model = fasttext.train_supervised(  # pyright: ignore[reportAttributeAccessIssue] - of the other package
        job["lines"], thread=1, verbose=0, loss="softmax", **job["arguments"]
    )
    if job["quantize"]:
        model.quantize(qnorm=True, verbose=0)
    model.save_model(job["model"])
    done = {
        "trainer": f"fasttext-community {version('fasttext-community')}",
        "labels": sorted(model.get_labels()),
        "words": len(model.get_words()),
        "seconds": round(time.monotonic() - began, 3),
    }
    with open(job["done"], "w", encoding="utf-8") as file:
        json.dump(done, file)


if __name__ == "__main__":
    main(sys.argv[1])
