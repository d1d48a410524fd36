"""datatrove's Gopher pipeline, JSONL.gz to JSONL.gz; run by the peer's interpreter (bench/corpus_parts/pipeline.py).

python datatrove_pipeline.py DOCUMENTS OUTPUT
"""

import contextlib
import json
import resource
import shutil
import sys
import time
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter


def cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> None:
    documents, output = sys.argv[1:]
    shutil.rmtree(output, ignore_errors=True)
    steps = [
        JsonlReader(documents),
        GopherRepetitionFilter(exclusion_writer=JsonlWriter(f"{output}/rejects/repetition")),
        GopherQualityFilter(exclusion_writer=JsonlWriter(f"{output}/rejects/quality")),
        JsonlWriter(f"{output}/docs"),
    ]
    tasks = len(list(Path(documents).glob("*.jsonl.gz")))
    began, before = time.perf_counter(), cpu_s()
    with contextlib.redirect_stdout(sys.stderr):
        stats = LocalPipelineExecutor(steps, tasks=tasks, workers=1, logging_dir=f"{output}/logs").run()
    found = {"cpu_s": cpu_s() - before, "wall_s": time.perf_counter() - began}
    print(json.dumps(found | {"kept": stats.stats[-1].stats["total"].total}))


if __name__ == "__main__":
    main()
