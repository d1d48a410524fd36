"""Run the proof of a release: our decoder, then transformers and a real vLLM server, both in their own environment."""

from pathlib import Path
from typing import Any

from model.convert import config_from_hf
from tasks.generation.server import SERVED_NAME, Serving, VllmServer, server_python
from tasks.inference import TextCodec
from tasks.release.config import ReleaseConfig
from tasks.release.proof import (
    by_server,
    by_transformers,
    continue_natively,
    prompts_of,
    record,
    require_same,
    server_version,
)

LONGEST_WINDOW = 1024  # beyond this a prompt that leaves the local window is too slow for a proof on a CPU


def prove(config: ReleaseConfig, directory: Path, scratch: Path) -> dict[str, Any]:
    """proof.json: what each path answered, next to ours.

    Raises:
        DataFault: a path reads the model differently.
        ConfigError: the serving environment is not there.
    """
    python = server_python()
    shape = config_from_hf(directory)
    room = shape.max_seq_len - config.proof_tokens
    local = shape.local_window or 0
    window = local + 1 if 0 < local < min(room, LONGEST_WINDOW) // 2 else 0
    prompts = prompts_of(TextCodec(directory), config.proof_texts, config.proof_messages, window)
    ours = continue_natively(directory, prompts, config.proof_tokens)
    found, facts = by_transformers(python, directory, prompts, ours, scratch)
    require_same("transformers", found, prompts)
    paths = [record("transformers", facts["transformers"], found, **facts)]
    if config.serve:
        serving = Serving(
            dtype="float32",
            max_seq_len=shape.max_seq_len,
            max_sequences=8,
            start_timeout_s=config.start_timeout_s,
        )
        with VllmServer(directory, serving, scratch) as server:
            url = server.ensure()
            served = by_server(url, SERVED_NAME, prompts, ours)
            require_same("vLLM", served, prompts)
            paths.append(record("vLLM", server_version(url), served, dtype="float32"))
    asked = [{"kind": prompt.kind, "content": prompt.content, "tokens": len(prompt.ids)} for prompt in prompts]
    answers = [list(continuation.tokens) for continuation in ours]
    return {"prompts": asked, "greedy_tokens": answers, "new_tokens": config.proof_tokens, "paths": paths}
