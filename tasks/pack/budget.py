"""From weights and a token budget to how many tokens each source gives, and how often its documents are seen."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import DataFault
from tasks.pack.config import SourceShare


@dataclass(frozen=True)
class Grant:
    """What a source gives to the mixture."""

    tokens: int  # budget over all epochs
    wanted: int  # what its weight asked for
    held: int  # tokens it has, each document once


def grants(
    sources: Sequence[SourceShare], held: Sequence[int], total_tokens: int | None, on_shortfall: str
) -> list[Grant]:
    """The budget of each source; the budgets add up to total_tokens wherever the sources can fill it.

    Without a total every source gives what it has, once. A source that cannot fill its share within max_epochs gives
    all it can; with on_shortfall="spread" the rest goes to the others by weight, and what nobody can give is missing.

    Raises:
        DataFault: a source is empty, or cannot fill its share and on_shortfall is "refuse".
    """
    empty = [source.name for source, tokens in zip(sources, held, strict=True) if not tokens]
    if empty:
        raise DataFault(
            f"sources without a single token: {', '.join(empty)}. A mixture that names a source and does not hold it "
            "is not what was asked for. See the rejects of the stages before, or take the source out of the mixture."
        )
    if total_tokens is None:
        return [Grant(tokens, tokens, tokens) for tokens in held]
    most = [int(tokens * source.max_epochs) for source, tokens in zip(sources, held, strict=True)]
    wanted = split(total_tokens, [source.weight for source in sources])
    short = [i for i in range(len(sources)) if wanted[i] > most[i]]
    if short and on_shortfall == "refuse":
        said = "; ".join(
            f"{sources[i].name} holds {held[i]:,} tokens, at most {sources[i].max_epochs:g} epochs of it are allowed, "
            f"its share is {wanted[i]:,} ({wanted[i] / held[i]:.2f} epochs)"
            for i in short
        )
        raise DataFault(
            f"{said}. A share must be filled by the source itself, because a mixture with other proportions is another "
            "experiment. Bring more text, lower the weight or total_tokens, raise max_epochs, or set on_shortfall to "
            "spread."
        )
    given = _fill(total_tokens, [source.weight for source in sources], most)
    return [Grant(g, w, h) for g, w, h in zip(given, wanted, held, strict=True)]


def split(total: int, weights: Sequence[float]) -> list[int]:
    """Whole parts in proportion to the weights that add up to the total; the largest remainders are rounded up."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def _fill(total: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """Shares by weight with ceilings: whoever reaches its ceiling stays there, the others share what is left."""
    given = [0] * len(weights)
    open_ = set(range(len(weights)))
    left = total
    while open_ and left:
        order = sorted(open_)
        parts = dict(zip(order, split(left, [weights[i] for i in order]), strict=True))
        full = [i for i in order if parts[i] >= most[i]]
        if not full:
            for i in order:
                given[i] = parts[i]
            break
        for i in full:
            given[i] = most[i]
            left -= most[i]
            open_.remove(i)
    return given
