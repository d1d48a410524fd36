"""`python -m tasks.train.feed`: a worker of the feed. It reads its order (JSON) and writes frames until no one reads.

Signals that tell a trainer to save and go reach its whole process group; a worker stays until the trainer needs it no
more, which it learns from the pipe.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from tasks.errors import HostFault, NestlingError
from tasks.tokens import TextTokenizer
from tasks.train.feed.frames import write_frame
from tasks.train.feed.sources import Source
from tasks.train.feed.streams import FeedConfig, next_rows, open_streams


def main() -> None:
    """Make rows until the pipe is closed, or say what went wrong."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no frame
    try:
        order = json.load(sys.stdin)
        cfg = FeedConfig(**order["cfg"])
        sources = [_source(said) for said in order["sources"]]
        tokenizer = TextTokenizer(Path(order["tokenizer"]["path"]), order["tokenizer"]["engine"])
        streams = open_streams(sources, tokenizer, cfg, order["streams"])
        for stream, state in zip(streams, order["states"], strict=True):
            stream.set_state(state)
        while True:
            rows = next_rows(streams, cfg)
            write_frame(pipe, {"states": [stream.get_state() for stream in streams]}, rows)
    except BrokenPipeError:
        pass
    except Exception as error:
        traceback.print_exc()
        write_frame(pipe, _fault(error), {})


def _source(said: dict[str, Any]) -> Source:
    for name in ("files", "taught", "phases"):
        said[name] = tuple(said[name])
    return Source(**said)


def _fault(error: Exception) -> dict[str, Any]:
    if isinstance(error, NestlingError):
        return {"fault": type(error).__name__, "message": str(error)}
    said = f"a feed worker stopped: {type(error).__name__}: {error}"
    return {"fault": HostFault.__name__ if isinstance(error, OSError | MemoryError) else "", "message": said}


if __name__ == "__main__":
    main()
    os._exit(0)  # nothing to flush but a pipe that may be closed
