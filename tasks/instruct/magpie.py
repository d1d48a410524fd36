"""Magpie: the teacher writes the user's turns from nothing, then answers those that pass the gates (recipes.md 5.6)."""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks import gates
from tasks.artifact import Artifact, Stage, Unit, Workspace
from tasks.generation.answer_store import AnswerStore, answers_url
from tasks.generation.answers import Replies, Reply, answer_all, note_totals
from tasks.generation.requests import Answer, DeadLetter, Generator, Request, Sampling, model_identity
from tasks.generation.server import policy_for, served
from tasks.instruct.config import InstructConfig, InstructGates
from tasks.instruct.wording import Elicitation, answer_prompt, elicitation, from_example
from tasks.records import CHAT, document_id, meta_json, table

Prompts = Sequence[tuple[str, str | None, Reply]]  # (text, reason to drop it or None, what the teacher said)


def make_conversations(workspace: Workspace, config: InstructConfig, inputs: dict[str, Artifact]) -> None:
    """Write `train/NNNNN.parquet` and `heldout/NNNNN.parquet` (CHAT); one row in is one prompt drawn.

    Raises:
        DataFault: too few prompts become conversations.
        HostFault: the teacher cannot be served.
    """
    teacher = inputs["teacher"]
    facts = teacher.read_json("teacher.json")
    model_dir = teacher.local_dir("model")
    identity = model_identity(facts["name"], teacher.manifest.content_digest)
    workspace.note(licences=facts["licence"], teachers=facts["name"])
    size = config.unit_requests
    starts = range(0, config.num_prompts, size)
    keys = [f"{start // size:05d}" for start in starts]
    workspace.expect_units(len(keys))
    watch = gates.YieldWatch(workspace.name, preview=config.preview_requests, least=config.min_yield)
    missing = watch.take(keys, workspace.unit_record)
    if missing:
        with served(model_dir, config.serving, workspace.scratch.parent / "servers") as generator:
            ask = _Asker(generator, AnswerStore(answers_url(workspace.url)), config, workspace.name)
            begin = elicitation(model_dir, facts["chat"], config.language)
            draws = [prompt_request(identity, begin, config, n) for n in range(config.num_prompts)]
            preview = [reply for _, reply in ask(draws[: config.preview_requests], "prompts")]
            _check_prompts(workspace.name, judge_prompts(preview, config), config)
            prompts = judge_prompts([*preview, *(reply for _, reply in ask(draws[len(preview) :], "prompts"))], config)
            blocks = {key: prompts[start : start + size] for key, start in zip(keys, starts, strict=True)}
            asks = [
                answer_request(identity, text, facts["chat"], config)
                for key in missing
                for text, reason, _ in blocks[key]
                if reason is None
            ]
            with contextlib.closing(ask(asks, "answers")) as replies:
                for key in missing:
                    with workspace.unit(key) as unit:
                        _write_unit(unit, blocks[key], replies, config, facts)
                    watch.take([key], workspace.unit_record)
                for _ in replies:  # lets the engine close its books
                    pass
    note_totals(workspace)


@dataclass(frozen=True)
class _Asker:
    """The engine with all that stays the same in one run."""

    generator: Generator
    store: AnswerStore
    config: InstructConfig
    name: str

    def __call__(self, requests: Sequence[Request], what: str) -> Replies:
        policy = policy_for(self.config.serving)
        label = f"{what} {self.name}"
        return answer_all(requests, self.generator, self.store, policy=policy, label=label, total=len(requests))


def judge_prompts(replies: Sequence[Reply], config: InstructConfig) -> Prompts:
    """Each prompt with the first gate it does not pass; of near-duplicates the first stays."""
    kept: list[frozenset[str]] = []
    judged: list[tuple[str, str | None, Reply]] = []
    for reply in replies:
        if isinstance(reply, DeadLetter):
            judged.append(("", f"dead_{reply.reason}", reply))
            continue
        text = tidy_prompt(reply.text)
        reason = prompt_gate(text, reply.finish, config)
        if reason is None:
            own = gates.shingles(text)
            if any(gates.similarity(own, other) > config.gates.max_similarity for other in kept):
                reason = "near_duplicate"
            else:
                kept.append(own)
        judged.append((text, reason, reply))
    return judged


def tidy_prompt(text: str) -> str:
    """What the user would have typed: no quotes or stars around it, no role name before it."""
    plain = re.sub(r"^(?:user|利用者|ユーザー)\s*[:：]\s*", "", text.strip(), flags=re.IGNORECASE)
    return plain.strip().strip("*").strip("\"'「」『』“”").strip()


def tidy_answer(text: str) -> str:
    """The answer without the sentence that only says that one is coming."""
    plain = text.strip()
    return _OPENER.sub("", plain).strip() or plain


def prompt_gate(text: str, finish: str, config: InstructConfig) -> str | None:
    """What a prompt must be."""
    g: InstructGates = config.gates
    return (
        ("prompt_truncated" if finish == "length" else None)
        or _named("prompt", gates.length(text, g.min_prompt_chars, g.max_prompt_chars))
        or _named("prompt", gates.leftovers(text))
        or _named("prompt", gates.identity_leak(text))
        or _named("prompt", gates.refusal(text))
        or (
            "prompt_unfinished" if text.endswith((":", "：", ",", "、")) else None
        )  # recipes.md 5.6: not ending with ":"
        or ("prompt_by_assistant" if _OFFERS.search(text) else None)
        or ("prompt_code_or_maths" if not g.allow_code_and_maths and _CODE_OR_MATHS.search(text) else None)
        or ("prompt_not_asking" if not _asks(text, config.language) else None)
        or _named("prompt", gates.repetition(text, g.max_repeated))
        or _named("prompt", gates.wrong_language(text, config.language))
    )


def answer_gate(prompt: str, answer: Answer, config: InstructConfig) -> str | None:
    """What an answer must be."""
    g, text = config.gates, tidy_answer(answer.text)
    return (
        ("answer_truncated" if answer.finish == "length" else None)
        or _named("answer", gates.length(text, g.min_answer_chars, g.max_answer_chars))
        or _named("answer", gates.leftovers(text))
        or _named("answer", gates.identity_leak(text))
        or _named("answer", gates.persona(text))
        or _named("answer", gates.refusal(text))
        or _named("answer", gates.repetition(text, g.max_repeated))
        or ("answer_echo" if _echoes(prompt, text) else None)
        or ("answer_from_example" if from_example(prompt, text, config.language) else None)
        or _named("answer", gates.wrong_language(text, config.language))
    )


_OFFERS = re.compile(
    r"(?i)\b(?:what|how) can i (?:do for|help|assist) you|\bi(?:'m| am) (?:here|happy|glad) to (?:help|assist)"
)
_CODE_OR_MATHS = re.compile(
    r"(?i)```|\b(?:python|java|javascript|ruby|sql|c\+\+|bash|code|function|algorithm|regex|dataframe|calculate|equation"
    r"|solve|sum of|average of|integers?|derivative|integral|probability|formula|theorem)\b"
    r"|関数|方程式|計算し|プログラム|\d+ ?[+*×÷/=] ?\d+"
)
_HELPFUL = (
    r"(?:yes, )?i(?:'d| would|'m| am|'ll| can| will)? (?:be )?(?:happy|glad|here|love|delighted) to (?:help|assist)"
)
_OPENER = re.compile(
    rf"(?i)^(?:(?:sure|absolutely|certainly|of course|great)\b[,!.]? *)?{_HELPFUL}[^.!?:\n]*[.!:]\s*"
    r"|^(?:sure|absolutely|certainly|of course)[!.]\s+"
)
_ASKING = {
    "en": re.compile(
        r"(?i)\?|^(?:please|write|give|list|explain|describe|tell|suggest|create|make|find|compare|help|show|provide"
        r"|summari[sz]e|translate|discuss|i(?:'m| am| want| need| would| have|'d| was)|can|could|what|how|why|when"
        r"|where|which|who|is|are|do|does)\b"
    ),
    "ja": re.compile("[?？]|(?:か|ください|たい|てほしい|教えて|ですか|ますか)[。.]?$"),
}


def _asks(text: str, language: str) -> bool:
    return language not in _ASKING or _ASKING[language].search(text) is not None


def _echoes(prompt: str, answer: str) -> bool:
    """The answer is the question again, or asks back."""
    if gates.similarity(gates.shingles(prompt), gates.shingles(answer)) > 0.7 or answer.rstrip().endswith(("?", "？")):
        return True
    sentences = [part for part in gates.SENTENCE_BREAK.split(answer) if part.strip()]
    return 2 * sum(part.rstrip().endswith(("?", "？")) for part in sentences) >= len(sentences)


def _named(part: str, reason: str | None) -> str | None:
    return f"{part}_{reason}" if reason else None


def prompt_request(model: str, begin: Elicitation, config: InstructConfig, index: int) -> Request:
    """The request for prompt number `index`; its seed makes it another draw of the same text."""
    seed = int.from_bytes(hashlib.sha256(f"{config.seed} {index}".encode()).digest()[:4], "big")
    sampling = Sampling(
        max_tokens=config.max_prompt_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        stop=begin.stop,
        seed=seed,
    )
    return Request(model, "completion", begin.prefix, sampling)


def answer_request(model: str, prompt: str, chat: bool, config: InstructConfig) -> Request:
    """The request for the answer to a prompt, greedy."""
    kind, full, stop = answer_prompt(prompt, chat, config.language, config.brief_answers)
    return Request(model, kind, full, Sampling(max_tokens=config.max_answer_tokens, stop=stop))


def _write_unit(
    unit: Unit,
    prompts: Prompts,
    replies: Iterator[tuple[Request, Reply]],
    config: InstructConfig,
    teacher: Mapping[str, Any],
) -> None:
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "heldout": []}
    books: Counter[str] = Counter()
    cost = 0.0
    for text, reason, drawn in prompts:
        unit.count(rows_in=1)
        said: list[Answer] = [drawn] if isinstance(drawn, Answer) else []
        row = {"prompt": text or getattr(drawn, "message", "")}
        if reason is None:
            request, reply = next(replies)
            if isinstance(reply, DeadLetter):
                reason, row = f"dead_{reply.reason}", row | {"message": reply.message}
            else:
                said.append(reply)
                reason, row = answer_gate(text, reply, config), row | {"answer": reply.text}
            if reason is None:
                part, made = _conversation(text, said[-1], request, config, teacher)
                rows[part].append(made)
                unit.count(rows_out=1)
        if reason is not None:
            unit.drop(reason, row)
        books.update(
            prompt_tokens=sum(a.prompt_tokens for a in said), completion_tokens=sum(a.completion_tokens for a in said)
        )
        cost += sum(answer.cost for answer in said)
    for part, made in rows.items():
        unit.write_parquet(f"{part}/{unit.key}.parquet", table(made, CHAT))
    unit.note(**books, cost=round(cost, 6))


def _conversation(
    prompt: str, answer: Answer, request: Request, config: InstructConfig, teacher: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Where the conversation goes (by a hash of the prompt, so equal prompts never part) and its row."""
    source = f"magpie-{config.language}"
    share = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": tidy_answer(answer.text)}]
    messages = json.dumps(turns, ensure_ascii=False)
    return "heldout" if share < config.held_out_fraction else "train", {
        "id": document_id(source, "", messages),
        "messages": messages,
        "language": config.language,
        "source": source,
        "teacher": teacher["name"],
        "licence": teacher["licence"],
        "meta": meta_json(request=request.digest),
    }


def _check_prompts(name: str, prompts: Prompts, config: InstructConfig) -> None:
    """Stop before the rest is drawn when the prompts themselves are no use."""
    reasons = Counter(reason for _, reason, _ in prompts if reason)
    watch = gates.YieldWatch(f"prompts of {name}", preview=config.preview_requests, least=config.min_yield)
    watch.add(len(prompts), len(prompts) - reasons.total(), reasons)


INSTRUCT = Stage(
    name="instruct",
    version="1",
    run=make_conversations,
    code=("tasks.instruct.magpie", "tasks.instruct.wording", "tasks.gates", "tasks.generation.requests"),
    expensive=True,
)
