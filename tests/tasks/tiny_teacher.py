"""A teacher artifact without weights, for stages whose server is a script."""

import json
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from tasks.artifact import Artifact
from tests.tasks.artifacts import artifact

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def teacher(store: Path, chat: bool = True) -> Artifact:
    """Tiny-Teacher: its tokenizer counts words."""
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    facts = {"name": "Tiny-Teacher", "licence": "Apache-2.0", "chat": chat, "max_seq_len": 2048}
    files = {
        "teacher.json": json.dumps(facts).encode(),
        "model/config.json": b'{"head_dim": 64}',
        "model/tokenizer.json": words.to_str().encode(),
        "model/tokenizer_config.json": json.dumps({"chat_template": CHATML if chat else ""}).encode(),
    }
    notes = {"licences": ["Apache-2.0"], "teachers": ["Tiny-Teacher"]}
    return artifact(store, "teacher", "tiny" if chat else "tiny-base", files, notes=notes)
