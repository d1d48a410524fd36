"""Items in other words: TF-IDF against plain Python, thresholds at both sides, and an embedder that is a real child."""

import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tasks.artifact import produce
from tasks.decontaminate.config import DecontaminateConfig, ItemFile, Paraphrases
from tasks.decontaminate.index import Item
from tasks.decontaminate.paraphrase import BLOCK, _nearest, closest_to, passages_of
from tasks.decontaminate.stage import DECONTAMINATE
from tasks.errors import ConfigError, HostFault
from tasks.records import CHAT, table
from tests.tasks.artifacts import artifact
from tests.tasks.decontaminate.slow import plain
from tests.tasks.decontaminate.test_stage import conversation, rejects, rows_of

ITEMS = [
    Item("gsm8k", "0", "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total?"),
    Item("gsm8k", "1", "Janet’s ducks lay 16 eggs per day. She eats three for breakfast every morning."),
    Item("mgsm", "0", "ローブを作成するには、青色の繊維を2巻分、白色の繊維をその半分用いる必要があります。"),
]
REPHRASED = "A garment needs 2 bolts of blue fiber and half the amount of white fiber. What is the total of bolts?"
OTHER = "The train goes from the station at noon and arrives in the next town before the evening of the same day."
COMMAND = (sys.executable, str(Path(__file__).with_name("embedder.py")))


def grams(text: str) -> Counter[str]:
    letters = plain(text).replace(" ", "")
    return Counter(letters[i : i + 3] for i in range(len(letters) - 2))


def cosine(left: str, right: str) -> float:
    """TF-IDF as the module's docstring has it, with dictionaries."""
    having = Counter(gram for item in ITEMS for gram in grams(item.text))
    having = Counter({gram: sum(gram in grams(item.text) for item in ITEMS) for gram in having})

    def vector(text: str) -> dict[str, float]:
        return {
            gram: (1 + math.log(n)) * (1 + math.log((1 + len(ITEMS)) / (1 + having[gram])))
            for gram, n in grams(text).items()
        }

    a, b = vector(left), vector(right)
    dot = sum(value * b.get(gram, 0) for gram, value in a.items())
    return dot / math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))


def nearest(rows, **rules):
    with closest_to(ITEMS, Paraphrases(**rules)) as closest:
        return closest(rows)


def test_a_rephrased_item_is_found_and_another_text_is_not():
    one, other, none = nearest([[OTHER, REPHRASED], [OTHER], []], min_cosine=0.4)
    assert one is not None
    assert (one.item, one.evidence, one.rule) == (ITEMS[0], REPHRASED, "TF-IDF of 3 letters: cosine 0.4")
    assert one.similarity == pytest.approx(cosine(REPHRASED, ITEMS[0].text), abs=1e-3)
    assert other is None
    assert none is None


@pytest.mark.parametrize(("step", "is_found"), [(0.0, True), (1e-6, False)])
def test_the_cosine_decides_at_both_sides(step, is_found):
    (found,) = nearest([[REPHRASED]], min_cosine=0.01)
    assert found is not None
    assert (nearest([[REPHRASED]], min_cosine=found.similarity + step)[0] is not None) == is_found


def vectors(*rows: list[float]) -> np.ndarray:
    made = np.array(rows, float)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_the_margin_is_the_cosine_above_the_mean_of_the_four_next_items():
    targets = vectors([1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1], [1, 1, 1])
    passage = vectors([0.9, 0.1, 0.2])
    cosines = sorted((float(passage[0] @ row) for row in targets), reverse=True)
    score, margin, number = _nearest(passage, targets)
    assert score[0] == pytest.approx(cosines[0], abs=1e-6)
    assert margin[0] == pytest.approx(cosines[0] - sum(cosines[1:5]) / 4, abs=1e-6)
    assert number[0] == 0
    assert _nearest(passage, targets[:4])[1][0] == -1, "four items leave three others: no margin"


def test_an_item_far_off_is_found_by_its_margin_alone_and_at_both_sides_of_it():
    items = [*ITEMS, *(Item("x", f"{i}", f"{OTHER} {word}") for i, word in enumerate(("alpha", "bravo", "delta")))]

    def rule(margin: float) -> str:
        with closest_to(items, Paraphrases(min_cosine=0.9, min_margin=margin)) as closest:
            (one,) = closest([[REPHRASED]])
        return one.rule if one else ""

    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if rule(middle) else (low, middle)
    assert rule(low) == f"TF-IDF of 3 letters: margin {low:g}"
    assert rule(high) == ""
    assert low == pytest.approx(0.45, abs=0.1)


@pytest.mark.parametrize(("letters", "is_found"), [(20, True), (19, False)])
def test_passages_of_fewer_than_twenty_letters_are_not_compared(letters, is_found):
    shown = plain(ITEMS[1].text).replace(" ", "")[:letters]
    assert (nearest([[shown]], min_cosine=0.2)[0] is not None) == is_found


def test_no_block_shows_in_the_result():
    rows = [[OTHER + str(i)] for i in range(BLOCK)] + [[REPHRASED], [OTHER, ITEMS[2].text]]
    together = nearest(rows, min_cosine=0.1)
    assert together == [*nearest(rows[:5], min_cosine=0.1), *nearest(rows[5:], min_cosine=0.1)]
    assert together[-1] is not None


def test_passages_are_messages_and_paragraphs():
    assert passages_of(conversation(1, "Hi\n\nyou", "Yes")) == ["Hi\n\nyou", "Yes"]
    assert passages_of({"text": "one\ntwo\n \nthree"}) == ["one\ntwo", "three"]


def test_an_embedder_finds_a_translation_and_is_asked_in_a_process_of_its_own():
    items = [Item("zoo", "0", "the cat and the cat sat near a dog")]
    rows = [["猫と猫は犬のそばに座っていました。猫と猫は、犬のそばにいました。"], [OTHER]]
    with closest_to(items, Paraphrases(min_cosine=0.7, embedder=COMMAND, model="counts/1")) as closest:
        found = closest(rows)
    assert found[0] is not None
    assert (found[0].item, found[0].rule) == (items[0], "counts/1: cosine 0.7")
    assert found[1] is None


def test_an_embedder_with_many_texts_blocks_neither_end():
    items = [Item("zoo", f"{i}", f"{i} the cat " + "x" * 5000) for i in range(100)]
    with closest_to(items, Paraphrases(min_cosine=0.99, embedder=COMMAND, model="counts/1")) as closest:
        assert [one is not None for one in closest([["the cat " + "y" * 5000]] * 100)] == [True] * 100


@pytest.mark.parametrize("text", ["break it here, please do so", "leave here, please, and do so"])
def test_an_embedder_that_fails_stops_the_run_and_says_what_it_said(text):
    with (
        pytest.raises(HostFault, match="a line must be a JSON list of numbers"),
        closest_to(ITEMS, Paraphrases(embedder=COMMAND, model="counts/1")) as closest,
    ):
        closest([[text]])


def test_an_embedder_that_is_not_there_is_a_config_fault():
    rules = Paraphrases(embedder=("/no/such/program",), model="x")
    with pytest.raises(ConfigError, match="cannot be started"), closest_to(ITEMS, rules):
        pass


def test_an_embedder_must_say_what_it_computes_with_and_its_command_is_no_identity():
    with pytest.raises(ValidationError, match="Give both, or neither"):
        Paraphrases(embedder=COMMAND)
    assert Paraphrases(embedder=COMMAND, model="m").semantic() == Paraphrases(embedder=("x",), model="m").semantic()


def test_conversations_that_rephrase_an_item_are_dropped_when_asked_for(tmp_path):
    (tmp_path / "gsm.txt").write_text("\n".join(item.text for item in ITEMS), encoding="utf-8")
    rows = [conversation(1, REPHRASED, "3"), conversation(2, OTHER, "ok"), conversation(3, ITEMS[1].text, "16")]
    docs = artifact(tmp_path / "s", "instruct", "x", {"train/0.parquet": table(rows, CHAT)})
    config = DecontaminateConfig(files=(ItemFile(name="gsm8k", url=str(tmp_path / "gsm.txt")),))
    assert len(rows_of(produce(str(tmp_path / "s"), DECONTAMINATE, "x", config, {"docs": docs}))) == 2
    asked = config.with_changes({"paraphrases": {"min_cosine": 0.4}})
    made = produce(str(tmp_path / "s"), DECONTAMINATE, "x", asked, {"docs": docs})
    assert rows_of(made) == rows[1:2]
    assert {row["id"]: row["rule"] for row in rejects(made)} == {
        "0001": "TF-IDF of 3 letters: cosine 0.4",
        "0003": "13 words",
    }
