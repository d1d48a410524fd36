"""The tokenizer of a from-scratch student: SentencePiece BPE as Gemma's, and the same thing for transformers and vLLM.

Runs of spaces, newlines and tabs are symbols of 2, 4, 8, … characters that SentencePiece takes whole before it merges
anything. With powers of two that equals merging pairs from the left, so `tokenizer.json` can say it in merges, and both
files give the same ids for every text. The stage checks this on the text it learnt from.
"""

import heapq
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sentencepiece as spm
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from model.families.gemma2 import CHAT_TEMPLATE, END_OF_TURN, SPECIAL_TOKENS, START_OF_TURN
from tasks.artifact import Artifact, Stage, Workspace
from tasks.errors import ConfigError, DataFault
from tasks.pack.config import TokenizerConfig
from tasks.pack.inputs import rank, training_folder
from tasks.shards import read_documents

SPACE = "▁"  # what SentencePiece writes for a space
CONTROL = [SPECIAL_TOKENS[name] for name in ("pad", "eos", "bos", "unk")]  # ids 0 to 3, as in every Gemma
RUNS = [run * 2**k for run, longest in ((SPACE, 4), ("\n", 3), ("\t", 3)) for k in range(longest + 1)]
LINE_CHARS = 1000  # longer lines are learnt from in pieces; SentencePiece would drop them without a word
CHECK_TEXTS = (
    "a  b   c\n\n\n\td 12345",
    "日本語 の\u3000文章。🎉 é 龘",
    f"<eos> {SPACE}{SPACE}x\r\n \x00",
    "def f(x):\n        return x",
)


def learn(lines: Iterable[str], *, vocab_size: int, character_coverage: float) -> bytes:
    """A SentencePiece model learnt from lines of text; the same lines give the same bytes.

    Raises:
        DataFault: the text has not enough different pieces for the vocabulary.
        ConfigError: the vocabulary has not enough room for the characters of the text.
    """
    model = io.BytesIO()
    try:
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(lines),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            character_coverage=character_coverage,
            split_digits=True,
            byte_fallback=True,
            add_dummy_prefix=False,
            remove_extra_whitespaces=False,
            normalization_rule_name="identity",
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            # Named here too: the defaults are <s> and </s>, and a <bos> added later would lie beyond the vocabulary.
            pad_piece=CONTROL[0],
            eos_piece=CONTROL[1],
            bos_piece=CONTROL[2],
            unk_piece=CONTROL[3],
            user_defined_symbols=[START_OF_TURN, END_OF_TURN, *(run for run in RUNS if run != SPACE)],
            max_sentence_length=8 * LINE_CHARS,
            num_threads=1,
            minloglevel=2,
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        if "too high" in reason or "Input corpus" in reason or "is_space" in reason:
            raise DataFault(
                f"vocab_size={vocab_size:,} cannot be filled: {reason} Every id must be a piece that occurs in the "
                "text. Give more text (documents, sample_bytes) or use a smaller vocab_size."
            ) from error
        raise ConfigError(
            f"vocab_size={vocab_size:,} is refused by SentencePiece: {reason} The characters of the text, 256 bytes "
            "and the special tokens need room. Use a larger vocab_size or a lower character_coverage."
        ) from error
    return model.getvalue()


def to_tokenizer_json(model: bytes) -> str:
    """The `tokenizer.json` that gives the ids of a SentencePiece model made by `learn`."""
    pieces = spm.SentencePieceProcessor(model_proto=model)
    size = pieces.vocab_size()
    vocab = {pieces.id_to_piece(i): i for i in range(size)}
    fixed = {START_OF_TURN, END_OF_TURN, *RUNS} - {SPACE}
    learnt = [
        i
        for i in range(size)
        if not (pieces.is_control(i) or pieces.is_unknown(i) or pieces.is_byte(i))
        and pieces.id_to_piece(i) not in fixed
    ]
    known = {pieces.id_to_piece(i) for i in learnt}
    # Runs first: SentencePiece takes them whole before any merge.
    merges = [(run[: len(run) // 2], run[len(run) // 2 :]) for run in RUNS if len(run) > 1]
    # Pieces are numbered in the order in which they were learnt, which is the order in which they are merged.
    for piece in (pieces.id_to_piece(i) for i in learnt):
        merges += [(piece[:k], piece[k:]) for k in range(1, len(piece)) if piece[:k] in known and piece[k:] in known]
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token=CONTROL[3], byte_fallback=True, fuse_unk=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CONTROL[2]} $A", pair=f"{CONTROL[2]} $A {CONTROL[2]}:1 $B:1", special_tokens=[(CONTROL[2], 2)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True) for token in (*CONTROL, START_OF_TURN, END_OF_TURN)]
    )
    return tokenizer.to_str(pretty=False)


def require_equal(model: bytes, tokenizer_json: str, texts: Sequence[str]) -> None:
    """Both files must give the same ids, because the trainer reads one and other tools may read the other.

    Raises:
        DataFault: a text for which they differ.
    """
    pieces, tokenizer = spm.SentencePieceProcessor(model_proto=model), Tokenizer.from_str(tokenizer_json)
    tokenizer.encode_special_tokens = True
    encodings = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    for text, theirs, encoding in zip(texts, pieces.encode(list(texts)), encodings, strict=True):
        # The two turn marks are symbols for SentencePiece wherever they stand; text never holds them for us.
        if theirs != encoding.ids and START_OF_TURN not in text and END_OF_TURN not in text:
            at = next((i for i, (a, b) in enumerate(zip(theirs, encoding.ids, strict=False)) if a != b), 0)
            raise DataFault(
                f"tokenizer.model gives {theirs[at : at + 8]} and tokenizer.json {encoding.ids[at : at + 8]} from "
                f"token {at} of {text[:80]!r}: both must agree, because the trainer reads one and other tools may "
                "read the other. Please report this text; another sample_bytes or vocab_size may avoid the piece."
            )


def files_of(model: bytes) -> dict[str, bytes]:
    """All files of the tokenizer, by name; transformers, vLLM and SentencePiece load them."""
    marks = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), CONTROL, strict=True))
    turns = [START_OF_TURN, END_OF_TURN]
    config = marks | {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {str(i): _added(token) for i, token in enumerate([*CONTROL, *turns])},
        "additional_special_tokens": turns,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 10**30,  # transformers' own way to say "no limit"; the model's config has one
        "padding_side": "left",
        # GemmaTokenizer would add a <mask> beyond the vocabulary and rebuild what tokenizer.json says.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    return {
        "tokenizer.model": model,
        "tokenizer.json": to_tokenizer_json(model).encode(),
        "tokenizer_config.json": _json(config),
        "special_tokens_map.json": _json(marks | {"additional_special_tokens": turns}),
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
    }


def sample(artifact: Artifact, sample_bytes: int) -> list[str]:
    """Texts of an artifact in an order drawn by their ids, up to the one that fills a number of bytes."""
    heap: list[tuple[int, str, str]] = []  # the last of the order on top
    held = 0
    for batch in read_documents(artifact, training_folder(artifact), ["id", "text"]):
        for key, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            heapq.heappush(heap, (-rank(key), key, text))
            held += len(text.encode())
            while held - len(heap[0][2].encode()) >= sample_bytes:
                held -= len(heapq.heappop(heap)[2].encode())
    return [text for _, _, text in sorted(heap, reverse=True)]


def lines_of(texts: Iterable[str]) -> Iterator[str]:
    """Lines that SentencePiece accepts: cut at newlines and every LINE_CHARS characters, none blank."""
    for text in texts:
        for line in text.split("\n"):
            for start in range(0, len(line), LINE_CHARS):
                piece = line[start : start + LINE_CHARS].replace("\x00", "")  # reserved in SentencePiece's trainer
                if piece.strip():
                    yield piece


def train_tokenizer(workspace: Workspace, config: TokenizerConfig, inputs: dict[str, Artifact]) -> None:
    """Write the files of a tokenizer learnt from all inputs."""
    if workspace.unit_record("tokenizer") is not None:
        return
    with workspace.unit("tokenizer") as unit:
        texts = [text for role in sorted(inputs) for text in sample(inputs[role], config.sample_bytes)]
        model = learn(lines_of(texts), vocab_size=config.vocab_size, character_coverage=config.character_coverage)
        files = files_of(model)
        require_equal(model, files["tokenizer.json"].decode(), [*CHECK_TEXTS, *texts])
        for name, data in files.items():
            unit.write_bytes(name, data)
        unit.note(texts=len(texts), bytes=sum(len(text.encode()) for text in texts))


TOKENIZER = Stage(
    name="tokenizer",
    version="1",
    run=train_tokenizer,
    code=("tasks.pack.tokenizer", "tasks.pack.inputs", "model.families.gemma2", "tasks.shards"),
)


def _added(token: str) -> dict[str, Any]:
    return {
        "content": token,
        "lstrip": False,
        "normalized": False,
        "rstrip": False,
        "single_word": False,
        "special": True,
    }


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n").encode()
