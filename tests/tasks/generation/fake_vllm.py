"""Stands in for vLLM's server where its start, death and restart are tested: same flags, same routes, in milliseconds.

Behaviour by FAKE_VLLM: `die` at start, `never` ready, `crash:N` at the N-th completion of each of the first two lives,
`taken` = says that the port is in use the first time, `killed:N` = the first N lives are killed at start. Lives are
counted in FAKE_VLLM_LIVES.
"""

import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

behaviour = os.environ.get("FAKE_VLLM", "")
lives = Path(os.environ["FAKE_VLLM_LIVES"])
with lives.open("a") as file:
    file.write(f"{os.getpid()} {' '.join(sys.argv[1:])}\n")
life = len(lives.read_text().splitlines())
port = int(sys.argv[sys.argv.index("--port") + 1])
if behaviour == "die":
    print("INFO loading", "\nValueError: no such architecture", "\nmore words", flush=True)
    sys.exit(3)
if behaviour == "never":
    print("still loading", flush=True)
    time.sleep(60)
if behaviour == "taken" and life == 1:
    print("OSError: [Errno 98] Address already in use", flush=True)
    sys.exit(1)
if behaviour.startswith("killed") and life <= int(behaviour.partition(":")[2]):
    os.kill(os.getpid(), signal.SIGKILL)
answered = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send({})

    def do_POST(self) -> None:
        global answered
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        answered += 1
        if behaviour.startswith("crash") and life <= 2 and answered >= int(behaviour.partition(":")[2]):
            os._exit(9)
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        self._send({"choices": [{"text": f"<{body['prompt']}>", "finish_reason": "stop"}], "usage": usage})

    def _send(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
