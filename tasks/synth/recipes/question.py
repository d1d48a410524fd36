"""A question whose answer is a sentence of the passage: the teacher writes only the question.

For the smallest teachers, which invent answers: here every answer is a true sentence of a real document, and the gates
need to find out only whether the question asks for it. The pair is appended to its passage, as in `qa`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher

from tasks import gates
from tasks.generation.requests import Answer, Sampling
from tasks.synth.recipes.passages import content_words, passages, sentences, stem
from tasks.synth.recipes.qa import as_text, judge_question
from tasks.synth.recipes.recipe import Ask, CountTokens, NotKept, Recipe, RecipeConfig

QUESTION_TOKENS = 48
SENTENCE_CHARS = {"en": (50, 220), "ja": (20, 120)}
MIN_SENTENCE_WORDS = {"en": 6, "ja": 4}
MIN_MIRRORED = 0.7  # share of a Japanese question, after its asking word, that is one run of the sentence
MIN_NEW_WORDS = {"en": 3, "ja": 1}  # that the sentence says and the question does not


@dataclass(frozen=True)
class Wording:
    """What is said to the teacher in one language."""

    instruction: str
    sentence: str
    question: str
    examples: tuple[tuple[str, str], ...]  # (sentence, question)


WORDING = {
    "en": Wording(
        instruction="Write the question that the sentence answers.",
        sentence="Sentence",
        question="Question",
        examples=(
            (
                "Photosynthesis takes place in the chloroplasts, which hold the green pigment chlorophyll.",
                "Where does photosynthesis take place?",
            ),
            (
                "By default, all pages of the document are printed.",
                "Which pages of the document are printed by default?",
            ),
            (
                "A mail server forwards each message to the host that the domain's record names.",
                "What does a mail server do with each message?",
            ),
            ("The Status Bar shows the number of words in the document.", "What does the Status Bar show?"),
            (
                "A backup must be made first, because the upgrade cannot be undone.",
                "Why must a backup be made first?",
            ),
        ),
    ),
    "ja": Wording(
        instruction="文が答えになる質問を書きなさい。",
        sentence="文",
        question="質問",
        examples=(
            ("光合成は、緑色の色素を含む葉緑体で行われます。", "光合成は、どこで行われますか。"),
            ("初期設定では、文書のすべてのページが印刷されます。", "初期設定では、どのページが印刷されますか。"),
            ("ステータスバーには、文書の単語数が表示されます。", "ステータスバーには、何が表示されますか。"),
            ("このコマンドは、ファイルの一覧を日付の順に並べます。", "このコマンドは、何を日付の順に並べますか。"),
            ("変更した設定は、文書と一緒にファイルに保存されます。", "変更した設定は、何に保存されますか。"),
            (
                "「元に戻す」ボタンでは、直前に行った操作を取り消せます。",
                "「元に戻す」ボタンでは、何を取り消せますか。",
            ),
        ),
    ),
}
# English sentences that stand alone begin with their subject, not with a verb or a word that points back.
_STARTS = re.compile(
    r"(?:The|A|An|Each|Every|Most|Some|All|By default,|When|Both|Only) "
    r"|[A-Z][\w-]+ (?:[\w-]+ )?"
    r"(?:is|are|has|have|can|cannot|must|should|will|may|allows?|provides?|includes?|uses?|contains?)\b"
)
_POINTS_BACK = re.compile(
    r"(?:this|these|those|that|it|its|they|he|she|you|your|here|there|then|thus|however|also|if|see|note|for example"
    r"|in this|the (?:following|above|previous|latter|former|same))\b",
    re.IGNORECASE,
)
_NOT_ALONE = re.compile(
    r"[:：\[\]{}<>|=]|\b(?:Figure|Table|Section|Chapter) \d|\b(?:above|below|following|previous)\b|図|表\d"
)
_JAPANESE_POINTS_BACK = re.compile(
    "こ[のれうち]|そ[のれうこ]|あ[のれ]|しかし|また|ただし|なお|つまり|例えば|たとえば|次の|以下|上記|詳細|[\\d(（]"
)
_JAPANESE_TOPIC = re.compile("(?P<topic>[^、。はがをで]{2,24}(?:には|では|とは|は)、?)(?!ない|なく)")
_JAPANESE_ASKING = re.compile("何|なに|どこ|どのような|どの|どれ|どう|どんな|いつ|なぜ|誰|いくつ|どちら")
_JAPANESE_NEGATION = re.compile("ません|ない|なく|ずに")
_HEADLESS = re.compile(r"[A-Z]\w+ (?:the|a|an|your|this|all|any|whether|if|in|how|which)\b")
_VERB = re.compile(
    r"\b(?P<be>(?:is|are|was|were|(?:can|may|must|should|will|cannot) (?:not )?be))\b"
    r"|\b(?:has|have|can|cannot|must|should|may|will|does|do|contains?|allows?|lets?|provides?|includes?|uses?|shows?|displays?"
    r"|returns?|opens?|creates?|specify|specifies|defines?|works?|supports?|consists?|depends?|means?|adds?|changes?|sets?"
    r"|selects?|rejects?|removes?|determines?|lists?|starts?|stops?|holds?|gives?|takes?|makes?|runs?|keeps?|stores?|sends?|reads?|writes?|calls?|needs?)\b"
)
_CUES = {  # what a sentence must hold to answer this kind of question
    "Where": re.compile(r"\b(?:in|on|at|from|under|below|above|near|into|to|within)\b"),
    "When": re.compile(
        r"\b(?:when|if|after|before|until|once|while|during|as soon as|whenever|by default)\b", re.IGNORECASE
    ),
    "Why": re.compile(r"\b(?:because|since|so that|in order to|due to|therefore)\b"),
    "How many": re.compile(r"\b(?:\d+|two|three|four|five|six|seven|eight|nine|ten)\b"),
    "How ": re.compile(r"\b(?:by|using|with|through|via)\b"),
}
_PURPOSE = re.compile(r"\b(?:used (?:to|for)|helps?|allows?|lets?|so that|in order to)\b")
_DEFINES = re.compile(r" (?:simply |just )?(?:an?|the|any|one) ")
_PLAIN = ("do", "work", "function", "mean")
_GENERIC_WORDS = "work happen function purpose mean name call many much use"
_GENERIC = {stem(word) for word in _GENERIC_WORDS.split()}


def subject_sentence(passage: str, language: str) -> str | None:
    """The first sentence of the passage that is understood without the others."""
    least, most = SENTENCE_CHARS[language]
    for paragraph in passage.splitlines():
        for text in sentences(paragraph, language):
            if least <= len(text) <= most and _stands_alone(text, language):
                return text
    return None


def _stands_alone(text: str, language: str) -> bool:
    if len(set(content_words(text, language))) < MIN_SENTENCE_WORDS[language] or _NOT_ALONE.search(text):
        return False
    if language == "ja":
        return text.endswith("。") and opening(text, language) != "" and not _JAPANESE_POINTS_BACK.match(text)
    return bool(
        text.endswith(".")
        and _STARTS.match(text)
        and not _POINTS_BACK.match(text)
        and not (_HEADLESS.match(text) and not text.startswith(("When ", "All ")))
        and _VERB.search(text)
    )


def opening(sentence: str, language: str) -> str:
    """The words with which the question begins: in Japanese the sentence's topic, so that the question keeps to it."""
    match = _JAPANESE_TOPIC.match(sentence) if language == "ja" else None
    return match["topic"] if match else ""


def ask(passage: str, config: RecipeConfig, chat: bool) -> Ask:
    """The instruction, a few examples, and one sentence of the passage."""
    word = WORDING[config.language]
    sentence = subject_sentence(passage, config.language)
    assert sentence is not None  # `chunks` gives no others
    sampling = Sampling(max_tokens=min(QUESTION_TOKENS, config.max_new_tokens), stop=("\n\n", f"\n{word.sentence}"))
    if chat:
        turns: list[tuple[str, str]] = [("system", word.instruction)]
        for shown, question in word.examples:
            turns += [("user", f"{word.sentence}: {shown}"), ("assistant", f"{word.question}: {question}")]
        return Ask("chat", (*turns, ("user", f"{word.sentence}: {sentence}")), sampling)
    begin = opening(sentence, config.language)
    begin = f" {begin}" if begin else ""
    examples = "".join(
        f"{word.sentence}: {shown}\n{word.question}: {question}\n\n" for shown, question in word.examples
    )
    return Ask(
        "completion", f"{word.instruction}\n\n{examples}{word.sentence}: {sentence}\n{word.question}:{begin}", sampling
    )


def accept(passage: str, answer: Answer, config: RecipeConfig) -> str:
    """The passage, the teacher's question and the sentence that answers it.

    Raises:
        NotKept: with the gate that the question does not pass.
    """
    word = WORDING[config.language]
    sentence = subject_sentence(passage, config.language)
    assert sentence is not None
    question = answer.text.strip().removeprefix(word.question).lstrip(" :：")
    question = opening(sentence, config.language) + question
    reason = (
        ("unparsed" if not question or "\n" in question else None)
        or judge_question(question, config)
        or gates.leftovers(question)
        or gates.refusal(question)
        or gates.identity_leak(question)
        or gates.repetition(question, config.gates.max_repeated)
        or gates.wrong_language(f"{question} {sentence}", config.language)
        or _foreign_words(question, sentence, config)
        or (_asks_otherwise(question, sentence) if config.language == "en" else _does_not_mirror(question, sentence))
    )
    if reason:
        raise NotKept(reason)
    return as_text(passage, question, sentence, config.language)


def _foreign_words(question: str, sentence: str, config: RecipeConfig) -> str | None:
    """The question must speak of what the sentence speaks of, and must not give the answer away."""
    language = config.language
    asked, said = content_words(question, language), set(content_words(sentence, language))
    asked = [word for word in asked if (word not in _GENERIC and not _JAPANESE_ASKING.match(word)) or word in said]
    if not any(_holds(said, sentence, word, language) for word in asked):
        return "off_topic"
    if not all(_holds(said, sentence, word, language) for word in asked):
        return "ungrounded"
    return "empty_answer" if len(said - set(asked)) < MIN_NEW_WORDS[language] else None


def _holds(words: set[str], sentence: str, word: str, language: str) -> bool:
    return word in sentence if language == "ja" else word in words  # Japanese compounds are cut differently each time


def _asks_otherwise(question: str, sentence: str) -> str | None:
    """The form of an English question must fit what the sentence says about its subject."""
    verb = _VERB.search(sentence)
    assert verb is not None
    head, rest = set(content_words(sentence[: verb.start()], "en")), sentence[verb.end() :]
    words = question.rstrip("?").split()
    if words[1:2] in (["does"], ["do"]) and words[0] in ("What", "How"):
        return None if _asks_what_it_does(words, verb, head, sentence) else "mismatched"
    for start, cue in _CUES.items():
        if question.startswith(start):
            return None if cue.search(sentence) else "mismatched"
    if match := re.fullmatch(r"What (?:is|are) the purpose of (?P<subject>.+)\?", question):
        fits = set(content_words(match["subject"], "en")) <= head and _PURPOSE.search(sentence)
    elif match := re.fullmatch(r"What (?:is|are) (?P<subject>.+)\?", question):
        fits = set(content_words(match["subject"], "en")) == head and verb["be"] and _DEFINES.match(rest)
    elif match := re.match(r"What (?P<modal>can|will|must|should|may) ", question):
        fits = re.search(rf"\b{match['modal']}\b(?! not)", sentence) is not None
    else:
        fits = words[0] in ("Which", "What") and words[1:2] not in (["is"], ["are"])
    return None if fits else "mismatched"


def _does_not_mirror(question: str, sentence: str) -> str | None:
    """A Japanese question must be its sentence with one part replaced by an asking word."""
    rest = question.removeprefix(opening(sentence, "ja"))
    asking = _JAPANESE_ASKING.findall(rest)
    if len(asking) != 1 or rest.count("。") > 1:
        return "mismatched"
    if asking[0] == "なぜ" and not re.search("ので|ため|から", sentence):
        return "mismatched"
    if _JAPANESE_NEGATION.search(sentence) and not _JAPANESE_NEGATION.search(rest):
        return "mismatched"
    tail = re.sub("(?:のです|です|ます|の)?か[。？?]$", "", rest.partition(asking[0])[2])
    takes_particle = asking[0] not in ("どの", "どんな", "どのような", "どう", "なぜ")
    if takes_particle and (tail[:1] not in "がをにでのとへ" or tail[:3] not in sentence):
        return "mismatched"
    match = SequenceMatcher(None, tail, sentence, autojunk=False).find_longest_match()
    return None if tail and match.size >= MIN_MIRRORED * len(tail) else "mismatched"


def _asks_what_it_does(words: list[str], verb: re.Match[str], head: set[str], sentence: str) -> bool:
    """`What does SUBJECT VERB …?`: the subject is the sentence's own, the verb its own or a plain one."""
    main = stem(verb.group())
    place = next((i for i, word in enumerate(words) if i > 2 and (stem(word) == main or word in _PLAIN)), None)
    if place is None:
        return False
    subject = set(content_words(" ".join(words[2:place]), "en"))
    disagrees = (words[1] == "does") == (re.search(r"[^s'u]s$", words[place - 1]) is not None)
    if not subject or not subject <= head or disagrees:
        return False
    if words[place] in _PLAIN:
        return not verb["be"] and place == len(words) - 1
    return words[0] == "What" or _CUES["How "].search(sentence) is not None


def chunks(text: str, config: RecipeConfig, count: CountTokens) -> Iterator[str]:
    """Passages that hold a sentence which stands alone."""
    return (passage for passage in passages(text, config, count) if subject_sentence(passage, config.language))


RECIPE = Recipe(chunks=chunks, ask=ask, accept=accept, source="qa", languages=("en", "ja"))
