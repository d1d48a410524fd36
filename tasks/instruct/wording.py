"""What is put before a user's turn so that a model writes the turn itself (Magpie), and how it is asked to answer.

A chat model gets its own template up to the start of the user's turn. A base model gets a few lines of a dialogue.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ConfigError
from tasks.generation.requests import Kind, Prompt


@dataclass(frozen=True)
class Elicitation:
    """How prompts are drawn from one teacher in one language."""

    prefix: str  # the model goes on after it
    stop: tuple[str, ...]


# The part of a chat template before the first word of the user, by the token that opens a turn.
CHATML_SYSTEM = (
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face"  # the template's own default turn
)
PRE_QUERY = {
    "<|im_start|>": Elicitation(
        f"<|im_start|>system\n{CHATML_SYSTEM}<|im_end|>\n<|im_start|>user\n", ("<|im_end|>", "<|im_start|>")
    ),
    "<start_of_turn>": Elicitation("<bos><start_of_turn>user\n", ("<end_of_turn>", "<start_of_turn>")),
}
FEW_SHOT = {
    "ja": (
        "以下は、利用者がアシスタントに送った質問の一覧です。\n",
        (
            "日本で一番高い山は何ですか。",
            "おいしいカレーの作り方を教えてください。",
            "なぜ空は青いのですか。",
            "朝早く起きるには、どうすればよいですか。",
        ),
        "利用者: ",
    ),
    "en": (
        "A list of questions that users asked an assistant.\n",
        (
            "What is the highest mountain in Japan?",
            "How do I cook a good curry?",
            "Why is the sky blue?",
            "How can I get up early?",
        ),
        "User: ",
    ),
}
EXAMPLE_RUN_CHARS = {"en": 32, "ja": 8}
BRIEFLY = {
    "en": "You answer questions in one or two short sentences.",
    "ja": "質問に一文か二文で短く答えてください。",
}
ANSWER_FEW_SHOT = {
    "ja": (
        (
            ("日本で一番高い山は何ですか。", "日本で一番高い山は富士山で、高さは3776メートルです。"),
            ("なぜ空は青いのですか。", "太陽の光のうち青い光が、空気に当たって四方に散らばるからです。"),
            ("朝早く起きるには、どうすればよいですか。", "前の日に早く寝て、毎日同じ時刻に起きるとよいです。"),
        ),
        "質問: ",
        "答え: ",
    ),
    "en": (
        (
            (
                "What is the highest mountain in Japan?",
                "The highest mountain in Japan is Mount Fuji, 3,776 metres high.",
            ),
            ("Why is the sky blue?", "The sky is blue because the air scatters blue light more than red light."),
            (
                "How can I get up early?",
                "Go to bed earlier and get up at the same time every day. It also helps to put the alarm clock away "
                "from your bed.",
            ),
        ),
        "Question: ",
        "Answer: ",
    ),
}


def elicitation(model_dir: Path, chat: bool, language: str) -> Elicitation:
    """How to draw prompts from this model.

    Raises:
        ConfigError: a chat template whose user turn is not known, or a language without examples.
    """
    if not chat:
        if language not in FEW_SHOT:
            raise ConfigError(
                f"language={language!r} has no examples for a base model, only {', '.join(FEW_SHOT)}: it needs a few "
                "questions to go on from. Add them to tasks/instruct/wording.py, or use a chat model."
            )
        head, examples, mark = FEW_SHOT[language]
        return Elicitation(head + "".join(f"{mark}{text}\n" for text in examples) + mark.rstrip(), ("\n",))
    template = _chat_template(model_dir)
    for token, found in PRE_QUERY.items():
        if token in template:
            return found
    raise ConfigError(
        f"{model_dir}: its chat template opens turns with none of {', '.join(PRE_QUERY)}: Magpie feeds a model its own "
        "template up to the user's first word. Add the template to PRE_QUERY in tasks/instruct/wording.py."
    )


def answer_prompt(prompt: str, chat: bool, language: str, brief: bool) -> tuple[Kind, Prompt, tuple[str, ...]]:
    """Kind, prompt and stop strings of the request for an answer; the examples are never part of the conversation."""
    if chat:
        turns: list[tuple[str, str]] = []
        if brief:
            turns.append(("system", BRIEFLY[language]))
            for asked, said in ANSWER_FEW_SHOT[language][0]:
                turns += [("user", asked), ("assistant", said)]
        return "chat", (*turns, ("user", prompt)), ()
    examples, question, answer = ANSWER_FEW_SHOT[language]
    shown = "".join(f"{question}{asked}\n{answer}{said}\n\n" for asked, said in examples)
    return "completion", f"{shown}{question}{prompt}\n{answer.rstrip()}", ("\n\n", f"\n{question.rstrip()}")


def from_example(prompt: str, answer: str, language: str) -> bool:
    """Whether an answer repeats a run of an example's answer to another question."""
    for asked, said in ANSWER_FEW_SHOT.get(language, ((), "", ""))[0]:
        runs = {said[i : i + EXAMPLE_RUN_CHARS[language]] for i in range(len(said) - EXAMPLE_RUN_CHARS[language] + 1)}
        if asked != prompt and any(run in answer for run in runs):
            return True
    return False


def _chat_template(model_dir: Path) -> str:
    file = model_dir / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8")
    config = json.loads((model_dir / "tokenizer_config.json").read_text("utf-8"))
    return str(config.get("chat_template") or "")
