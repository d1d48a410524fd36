"""A loopback server that speaks the OpenAI API by a script, and counts what it is asked. Runs alone with LOG."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Reply = dict[str, Any] | tuple[int, str] | tuple[int, str, dict[str, str]] | None  # None hangs up
Script = Callable[[str, int], Reply]  # (prompt, how often it was asked before) -> reply


def text(content: str, finish: str = "stop") -> dict[str, Any]:
    """A completion that holds this text."""
    return {
        "choices": [{"text": content, "message": {"content": content}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 3, "completion_tokens": len(content.split())},
    }


class StubApi:
    """Counts prompts as they arrive; answers as the script says."""

    def __init__(self, script: Script, log: Path | None = None, delay_s: float = 0.0):
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.most_at_once = 0
        self._script = script
        self._log = log
        self._delay_s = delay_s
        self._open = 0
        self._lock = threading.Lock()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(200, json.dumps({"data": [{"id": "stub-model"}]}))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                reply = stub._reply(body, dict(self.headers))
                if reply is None:
                    self.close_connection = True
                    self.connection.close()
                elif isinstance(reply, tuple):
                    self._send(reply[0], reply[1], *reply[2:])
                else:
                    self._send(200, json.dumps(reply))

            def _send(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
                data = body.encode()
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda request, client_address: None  # a client that went away
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _reply(self, body: dict[str, Any], headers: dict[str, str]) -> Reply:
        prompt = str(body.get("prompt") or body["messages"][-1]["content"])
        with self._lock:
            before = self.asked[prompt]
            self.asked[prompt] += 1
            self.bodies.append(body)
            self.headers.append(headers)
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
            if self._log:
                with self._log.open("a") as file:
                    file.write(prompt + "\n")
        try:
            time.sleep(self._delay_s)
            return self._script(prompt, before)
        finally:
            with self._lock:
                self._open -= 1


@contextmanager
def stub_api(script: Script, **options: Any) -> Iterator[StubApi]:
    """The server, running in a thread."""
    stub = StubApi(script, **options)
    thread = threading.Thread(target=stub.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.server.shutdown()
        stub.server.server_close()
        thread.join()


if __name__ == "__main__":
    alone = StubApi(lambda prompt, before: text(f"answer to {prompt}"), log=Path(sys.argv[1]), delay_s=0.05)
    print(alone.url, flush=True)
    alone.server.serve_forever()
