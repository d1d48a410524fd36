"""MaxText's own ahead-of-time compile, with its HLO text and memory kept; runs in MaxText's environment.

python maxtext_compile.py FOLDER KEY=VALUE …   (what `maxtext.trainers.pre_train.train_compile` takes after base.yml)
"""

import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import maxtext
from absl import app
from maxtext.trainers.pre_train import train_compile

MEMORY = ("argument", "output", "alias", "temp", "generated_code")


def main() -> None:
    folder, *changes = sys.argv[1:]
    compile_ = train_compile.jit_and_compile
    began = time.monotonic()

    def kept(*arguments: Any, **options: Any) -> Any:
        compiled = compile_(*arguments, **options)
        found = compiled.memory_analysis()
        memory = {name: getattr(found, f"{name}_size_in_bytes") for name in MEMORY}
        memory["peak"] = found.peak_memory_in_bytes
        (Path(folder) / "hlo.txt.gz").write_bytes(gzip.compress(compiled.as_text().encode(), mtime=0))
        facts = {"memory": memory, "compile_s": round(time.monotonic() - began, 1)}
        (Path(folder) / "compiled.json").write_text(json.dumps(facts))
        return compiled

    train_compile.jit_and_compile = kept
    base = Path(maxtext.__file__).parent / "configs" / "base.yml"
    app.run(train_compile.main, [sys.argv[0], str(base), *changes])


if __name__ == "__main__":
    main()
