"""Mixtures as they were published, in billions of tokens of a source, and how one becomes the sources of a pack.

Figures of the Swallow family are sampling weights in tokens of the model's tokenizer, from the training scripts of
okoge-kaz/Megatron-LM and llm-recipes; weights are normalised and drawn until the budget of steps ends, so the sums miss
the totals by hundredths. Each table says what about it is not certain.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JAPANESE = ("swallow-v", "wikipedia-ja", "laboro-paracorpus", "web-ja", "synthetic-ja")
CODE = ("algebraic-stack", "the-stack", "swallow-code")


@dataclass(frozen=True)
class Published:
    """One mixture: budgets in billions of tokens, by phase where there are several."""

    total: float
    phases: Mapping[str, Mapping[str, float]]
    source: str
    uncertain: str = ""

    @property
    def budgets(self) -> dict[str, float]:
        """Source -> billions of tokens over all phases."""
        found: dict[str, float] = {}
        for weights in self.phases.values():
            for name, billions in weights.items():
                found[name] = found.get(name, 0) + billions
        return found


def _one(total: float, budgets: Mapping[str, float], source: str, uncertain: str = "") -> Published:
    return Published(total, {"all": budgets}, source, uncertain)


LLAMA_3_1_V0_2 = {
    "swallow-v2-wiki": 40.64,
    "swallow-v2-edu": 93.10,
    "wikipedia-ja": 3.38,
    "laboro-paracorpus": 0.88,
    "wikipedia-en": 4.43,
    "dclm-baseline": 10.64,
    "cosmopedia": 14.93,
    "the-stack-v2-python": 32.0,
}
SWALLOW_MATH = {name: billions for name, billions in LLAMA_3_1_V0_2.items() if name != "the-stack-v2-python"} | {
    "dclm-baseline": 8.9,
    "cosmopedia": 13.1,
    "swallow-code-0.3": 26.0,
    "finemath-4plus": 9.58,
}

PUBLISHED: Mapping[str, Published] = {
    "llama2-swallow": _one(
        100,
        {"swallow-v1": 88.4, "wikipedia-ja": 1.6, "refinedweb": 5.0, "arxiv": 5.0},
        "arXiv 2404.17790",
        "From secondary notes: 90 % Japanese of about 100 B tokens; the Wikipedia part is given as about 1.6 B.",
    ),
    "llama3-swallow": _one(
        100,
        {
            "swallow-v1": 80.82,
            "wikipedia-ja": 1.69,
            "laboro-paracorpus": 0.88,
            "wikipedia-en": 2.05,
            "refinedweb": 2.05,
            "cosmopedia": 5.06,
            "algebraic-stack": 3.72,
            "openwebmath": 3.72,
        },
        "okoge-kaz/Megatron-LM, Llama 3 Swallow 8B and 70B",
    ),
    "llama3.1-swallow-v0.1": _one(
        200,
        {
            "swallow-v2-others": 41.33,
            "swallow-v2-wiki": 63.28,
            "wikipedia-ja": 3.38,
            "laboro-paracorpus": 0.88,
            "wikipedia-en": 4.43,
            "dclm-baseline": 39.69,
            "cosmopedia": 15.0,
            "the-stack-v2": 32.0,
        },
        "okoge-kaz/Megatron-LM, Llama 3.1 Swallow 8B v0.1",
        "For the 70B of v0.1 two scripts disagree (one has llama3-swallow's mixture, a later one v0.2's).",
    ),
    "llama3.1-swallow": _one(
        200,
        LLAMA_3_1_V0_2,
        "okoge-kaz/Megatron-LM, Llama 3.1 Swallow 8B v0.2, the Instruct-based ones, and Llama 3.3 70B",
        "The released Llama 3.3 v0.4 lists FineMath-4+ and Swallow Code 0.3 besides: see llama3.3-swallow.",
    ),
    "llama3.3-swallow": _one(
        200,
        SWALLOW_MATH,
        "okoge-kaz/Megatron-LM, ablation of SwallowMath",
        "The script of an ablation; the model card of v0.4 names these sources and no proportions.",
    ),
    "gemma-swallow": _one(
        100,
        {
            "swallow-v1": 79.8,
            "wikipedia-ja": 1.48,
            "laboro-paracorpus": 0.77,
            "wikipedia-en": 1.89,
            "refinedweb": 1.89,
            "cosmopedia": 5.09,
            "algebraic-stack": 4.54,
            "openwebmath": 4.54,
        },
        "llm-recipes scripts/gcp/gemma-swallow, 27B and 9B, in tokens of Gemma 2",
        "The precursor of Gemma-2-Llama-Swallow; weights may have been rounded to a budget.",
    ),
    "gemma2-swallow": _one(
        200,
        SWALLOW_MATH | {"swallow-v2-wiki": 37.60, "swallow-v2-edu": 86.14, "swallow-v2-qa": 10.0},
        "model card of Gemma-2-Llama-Swallow (the list), llama3.3-swallow (the proportions)",
        "Only the list of sources is published, with about 200 B tokens. Proportions are this project's: those of "
        "llama3.3-swallow, with 5 % of synthetic questions taken out of the two entries of Swallow v2.",
    ),
    "cosmopedia-swallow": _one(
        14.93,
        {
            "automathtext": 2.53,
            "khanacademy": 0.04,
            "openstax": 0.19,
            "stanford": 1.82,
            "stories": 5.24,
            "web-samples-v1": 2.65,
            "web-samples-v2": 2.15,
            "wikihow": 0.31,
        },
        "okoge-kaz/Megatron-LM: what Cosmopedia is made of in llama3.1-swallow",
    ),
    "tanuki-8b": Published(
        1300,
        {"web": {"web-ja": 630, "web-en": 450}, "synthetic": {"synthetic-ja": 220}},
        "matsuolab/tanuki",
        "From secondary notes: 1,300 B tokens with 220 B synthetic ones, the last part synthetic only; Japanese is "
        "given as 1/2 to 2/3, the middle is taken. How many of the last tokens were dialogue only is not published.",
    ),
    "tanuki-8x8b": Published(
        1710,
        {"web": {"web-ja": 875, "web-en": 625}, "synthetic": {"synthetic-ja": 210}},
        "matsuolab/tanuki",
        "As tanuki-8b, upcycled after 1,080 B tokens; 1,710 B in all, 210 B of them synthetic.",
    ),
}


def language_of(source: str) -> str:
    """The language code of a source of the tables; parallel text is filed under Japanese, its aim."""
    return "ja" if source.startswith(JAPANESE) else "code" if source.startswith(CODE) else "en"


def expand(asked: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """`sources` and `phases` of a pack config from {published, inputs, without, max_epochs}; weights are billions.

    `inputs` gives for each source of the table its place in `documents`; `without` names those to leave out, and the
    others share the budget in their proportions. The phases of the table hold unless the config has its own.

    Raises:
        ValueError: no such mixture; a source of it has no input and is not left out; a name that is not in it.
    """
    asked = dict(asked)
    name, inputs, without = asked.pop("published", ""), dict(asked.pop("inputs", {})), set(asked.pop("without", ()))
    max_epochs = asked.pop("max_epochs", 1.0)
    if name not in PUBLISHED or asked:
        raise ValueError(
            f"published={name!r}{f', {sorted(asked)}' if asked else ''}: a published mixture is named by one of "
            f"{', '.join(PUBLISHED)}, and has the keys published, inputs, without and max_epochs, because its figures "
            "stand in a table. Correct the name, or list the sources yourself."
        )
    published = PUBLISHED[name]
    budgets = published.budgets
    missing, unknown = budgets.keys() - inputs.keys() - without, (inputs.keys() | without) - budgets.keys()
    if missing or unknown or inputs.keys() & without or without >= budgets.keys():
        raise ValueError(
            f"{name}: no input for {sorted(missing)}, unknown {sorted(unknown)}, both given and left out "
            f"{sorted(inputs.keys() & without)}: the mixture has the sources {', '.join(budgets)}, and one left out "
            "must be said, because the shares of the others grow. Give its place in `documents`, or name it in "
            "`without`."
        )
    shares = [
        {"name": source, "language": language_of(source), "input": inputs[source], "max_epochs": max_epochs}
        | ({"weight": billions} if len(published.phases) == 1 else {})
        for source, billions in budgets.items()
        if source in inputs
    ]
    phases = [
        {"name": phase, "share": sum(kept.values()), "weights": kept}
        for phase, weights in published.phases.items()
        if (kept := {source: billions for source, billions in weights.items() if source in inputs})
    ]
    several = len(published.phases) > 1 and not config.get("phases")
    return {"sources": shares} | ({"phases": phases} if several else {})
