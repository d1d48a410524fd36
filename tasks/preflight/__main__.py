"""`python -m tasks.preflight SPEC.json RESULT.json CACHE`: compile one program and write what is known of it."""

import ctypes
import json
import signal
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1


def main(spec: str, result: str, cache: str) -> int:
    ctypes.CDLL("libc.so.6", use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a compile cannot be interrupted
    from tasks.preflight.program import compile_program

    found = compile_program(json.loads(Path(spec).read_text()), Path(cache))
    Path(result).write_text(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
