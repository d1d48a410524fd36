"""The served half of the proof: a scripted server for its refusals, a real vLLM for the proof itself."""

import contextlib
import json
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tasks.artifact import produce
from tasks.errors import DataFault
from tasks.release.config import ReleaseConfig
from tasks.release.proof import Continuation, Prompt, by_server, require_same, server_version
from tasks.release.release import RELEASE

PYTHON = Path(__file__).parents[3] / ".venv-vllm" / "bin" / "python"
PROMPTS = [Prompt("text", "a", (2, 9)), Prompt("chat", "b", (2, 4, 9))]
LOGITS = np.array([[0.0, 3.0], [2.0, 0.0]])
OURS = [Continuation((1, 0), LOGITS)] * 2


@contextlib.contextmanager
def server(tokens=(1, 0), prompt_tokens=None, status=200):
    """An OpenAI-compatible server that gives these tokens; yields its URL and the bodies it was sent."""
    asked = []
    logprobs = OURS[0].logprobs.tolist()
    names = [f"token_id:{token}" for token in tokens]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer({"version": "9.9"})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            if self.path == "/v1/chat/completions":
                steps = [{"token": name, "logprob": logprob} for name, logprob in zip(names, logprobs, strict=True)]
                choice = {"logprobs": {"content": steps}}
            else:
                choice = {"logprobs": {"tokens": names, "token_logprobs": logprobs}}
            length = 3 if "messages" in body else len(body["prompt"])
            self.answer({"choices": [choice], "usage": {"prompt_tokens": prompt_tokens or length}})

        def answer(self, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}", asked
        finally:
            running.shutdown()
            thread.join()


def test_texts_go_as_ids_and_questions_through_the_servers_own_template():
    with server() as (url, asked):
        found = by_server(url, "served", PROMPTS, OURS)
        require_same("x", found, PROMPTS)
        assert server_version(url) == "9.9"
    (path, text), (chat_path, chat) = asked
    assert path == "/v1/completions"
    assert text["prompt"] == [2, 9]
    assert chat_path == "/v1/chat/completions"
    assert chat["messages"] == [{"role": "user", "content": "b"}]
    assert text["temperature"] == chat["temperature"] == 0
    assert text["ignore_eos"] is chat["ignore_eos"] is True


def test_another_token_refuses():
    with server(tokens=(1, 1)) as (url, _):
        found = by_server(url, "served", PROMPTS, OURS)
    with pytest.raises(DataFault, match="x does not reproduce the model on 2 of 2 prompts"):
        require_same("x", found, PROMPTS)


def test_another_length_of_the_prompt_refuses():
    with server(prompt_tokens=4) as (url, _), pytest.raises(DataFault, match="read 4 tokens"):
        by_server(url, "served", PROMPTS, OURS)


def test_an_error_of_the_server_refuses():
    with server(status=500) as (url, _):
        with pytest.raises(DataFault, match="answered 500"):
            by_server(url, "served", PROMPTS, OURS)
        assert server_version(url) == "unknown version"


@pytest.mark.slow
@pytest.mark.vllm
@pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-vllm: make vllm")
def test_a_real_release_is_proved_by_transformers_and_by_a_real_vllm(tmp_path, world):
    config = ReleaseConfig(
        model="m",
        eval="e",
        model_name="Nestling-Tiny-ja",
        languages=("ja", "en"),
        proof_texts=("The package", "利用者は"),
        proof_messages=("方針とは?",),
        proof_tokens=16,
    )
    made = produce(str(tmp_path / "store"), RELEASE, "tiny", config, world)
    paths = made.read_json("proof.json")["paths"]
    assert [path["path"] for path in paths] == ["transformers", "vLLM"]
    assert all(path["prompts"] == 4 for path in paths)
    assert all(path["ties"] == 0 for path in paths)
    assert max(path["max_logprob_difference"] for path in paths) < 1e-4
    card = made.read_bytes("Nestling-Tiny-ja/README.md").decode()
    assert "vLLM 0.32.0 gives the same greedy tokens" in card
    snippet = card.split("```python\n")[1].split("```")[0]
    shown = subprocess.run(
        [str(PYTHON), "-c", snippet], cwd=made.local_dir(), capture_output=True, text=True, check=True, timeout=300
    )
    assert "<start_of_turn>user" in shown.stdout, "the card's own snippet runs as it is written"
