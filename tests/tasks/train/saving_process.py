"""`python -m tests.tasks.train.saving_process`: a run of saves for each line on stdin.

A line is {"run_dir", "remote", "delay_s"}. Each run is a fork of this process, so that a kill costs no import; it
writes its process id to stdout when it begins, and each step that it has begun to save. It restores, checks what it
restored, and makes steps until it is killed. This process itself has not touched a device.
"""

import json
import os
import sys
import time
from pathlib import Path

from tasks.storage import LocalStorage
from tests.tasks.train.tiny_run import TinyRun


def save_for_ever(run_dir: str, remote: str, delay_s: float) -> None:
    original = LocalStorage.upload

    def slowly(self: LocalStorage, url: str, source: Path) -> None:
        time.sleep(delay_s)  # so that kills fall into uploads too
        original(self, url, source)

    LocalStorage.upload = slowly
    changes = {"remote": remote, "keep": 2, "keep_every_steps": 7, "confirm_within_s": 60.0}
    with TinyRun(Path(run_dir), changes) as run:
        print(os.getpid(), flush=True)
        while True:
            run.step()
            print(run.at, flush=True)


def main() -> None:
    for line in sys.stdin:
        if not os.fork():
            try:
                save_for_ever(**json.loads(line))
            finally:
                os._exit(1)
        os.wait()
        print("ended", flush=True)


if __name__ == "__main__":
    from tests.tasks.train import nano

    with nano.known():
        main()
