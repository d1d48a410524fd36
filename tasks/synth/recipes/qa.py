"""One question and its answer about a passage, both written by the teacher; the gates keep what the passage supports.

One passage, one pair, greedy, stop at a blank line, as Swallow's Wikipedia pipeline does it (recipes.md 5.4). For
teachers that can hold a passage in mind; for the smallest ones there is `question`.
"""

import re
from dataclasses import dataclass
from itertools import pairwise

from tasks import gates
from tasks.generation.requests import Answer, Sampling
from tasks.synth.recipes.passages import SENTENCE_ENDS, content_words, passages
from tasks.synth.recipes.recipe import Ask, NotKept, Recipe, RecipeConfig

MIN_QUESTION_CHARS = {"en": 15, "ja": 8}
MAX_QUESTION_CHARS = 240
MIN_NEW_WORDS = 2  # that the answer says and the question does not
MIN_ON_TOPIC = 0.5  # share of the question's content words that the passage holds


@dataclass(frozen=True)
class Wording:
    """What is said to the teacher in one language."""

    instruction: str
    passage: str
    question: str
    answer: str
    examples: tuple[tuple[str, str, str], ...]  # (passage, question, answer)


WORDING = {
    "en": Wording(
        instruction=(
            "Read the passage. Write one question about it, then the answer. The answer is one sentence and uses the "
            "words of the passage."
        ),
        passage="Passage",
        question="Question",
        answer="Answer",
        examples=(
            (
                "Photosynthesis turns sunlight, water and carbon dioxide into sugar and oxygen. It takes place in the "
                "chloroplasts, which hold the green pigment chlorophyll.",
                "Where does photosynthesis take place?",
                "Photosynthesis takes place in the chloroplasts, which hold the green pigment chlorophyll.",
            ),
            (
                "The tab page Pages selects which pages are printed. By default, all pages are printed. The settings "
                "are saved together with the document.",
                "Which pages are printed by default?",
                "By default, all pages are printed.",
            ),
        ),
    ),
    "ja": Wording(
        instruction="文章を読み、その内容についての質問を一つ書き、文章の言葉を使って一文で答えなさい。",
        passage="文章",
        question="質問",
        answer="答え",
        examples=(
            (
                "光合成は、太陽の光と水と二酸化炭素から糖と酸素を作る働きである。光合成は葉緑体で行われ、葉緑体には"
                "クロロフィルという緑色の色素が含まれる。",
                "光合成はどこで行われますか。",
                "光合成は葉緑体で行われます。",
            ),
            (
                "「ページ」タブでは、印刷するページを選びます。初期設定では、すべてのページが印刷されます。設定は文書と"
                "一緒に保存されます。",
                "初期設定では、どのページが印刷されますか。",
                "初期設定では、すべてのページが印刷されます。",
            ),
        ),
    ),
}


def ask(passage: str, config: RecipeConfig, chat: bool) -> Ask:
    """A conversation for a chat model, plain text for a base model; the examples are the same."""
    word = WORDING[config.language]
    sampling = Sampling(max_tokens=config.max_new_tokens, stop=("\n\n", f"\n{word.passage}:"))
    if chat:
        turns: list[tuple[str, str]] = [("system", word.instruction)]
        for shown, question, answer in word.examples:
            turns += [
                ("user", f"{word.passage}: {shown}"),
                ("assistant", f"{word.question}: {question}\n{word.answer}: {answer}"),
            ]
        return Ask("chat", (*turns, ("user", f"{word.passage}: {passage}")), sampling)
    examples = "".join(
        f"{word.passage}: {shown}\n{word.question}: {question}\n{word.answer}: {answer}\n\n"
        for shown, question, answer in word.examples
    )
    flat = passage.replace("\n", " ")
    return Ask("completion", f"{word.instruction}\n\n{examples}{word.passage}: {flat}\n{word.question}:", sampling)


def accept(passage: str, answer: Answer, config: RecipeConfig) -> str:
    """The passage followed by its question and answer.

    Raises:
        NotKept: with the gate that the pair does not pass.
    """
    question, reply = parse(answer.text, config.language)
    both = f"{question}\n{reply}"
    ends = SENTENCE_ENDS[config.language]
    reason = (
        ("truncated" if answer.finish == "length" and not reply.endswith(ends) else None)
        or judge_question(question, config)
        or gates.length(reply, config.gates.min_chars, config.gates.max_chars)
        or gates.leftovers(both)
        or gates.refusal(both)
        or gates.identity_leak(both)
        or gates.repetition(reply, config.gates.max_repeated)
        or gates.wrong_language(both, config.language)
        or _unsupported(passage, question, reply, config)
    )
    if reason:
        raise NotKept(reason)
    return as_text(passage, question, reply, config.language)


def as_text(passage: str, question: str, reply: str, language: str) -> str:
    """A document: the passage, then the pair, as Swallow appends pairs to the article they are about."""
    word = WORDING[language]
    return f"{passage}\n\n{word.question}: {question}\n{word.answer}: {reply}\n"


def judge_question(question: str, config: RecipeConfig) -> str | None:
    """What every question must be."""
    if not question.endswith(("?", "？", "ですか。", "ますか。", "ませんか。")):
        return "no_question"
    return gates.length(question, MIN_QUESTION_CHARS[config.language], MAX_QUESTION_CHARS)


def parse(text: str, language: str) -> tuple[str, str]:
    """Question and answer from what the teacher wrote; a base model goes on after `Question:`.

    Raises:
        NotKept: not one question followed by one answer.
    """
    word = WORDING[language]
    match = re.fullmatch(
        rf"\s*(?:{word.question}\s*[:：])?\s*(?P<question>[^\n]+)\n+\s*{word.answer}\s*[:：]\s*(?P<answer>[^\n]+)\s*",
        text,
    )
    if not match:
        raise NotKept("unparsed")
    return match["question"].strip(), match["answer"].strip()


def _unsupported(passage: str, question: str, reply: str, config: RecipeConfig) -> str | None:
    """The passage does not say what the answer says, or the answer says nothing that the question did not."""
    given, asked, said = (content_words(text, config.language) for text in (passage, question, reply))
    known = set(given)
    if len(set(said) - set(asked)) < MIN_NEW_WORDS:
        return "empty_answer"
    if not asked or sum(word in known for word in asked) < MIN_ON_TOPIC * len(asked):
        return "off_topic"
    if not set(asked) & set(said):
        return "no_reply"  # an answer in a whole sentence takes up the question
    pairs = list(pairwise(said)) or [(said[0],)]
    near = set(pairwise(given)) | {(word,) for word in given}
    if sum(pair in near for pair in pairs) < config.gates.min_grounded * len(pairs):
        return "ungrounded"
    return None


RECIPE = Recipe(chunks=passages, ask=ask, accept=accept, source="qa", languages=("en", "ja"))
