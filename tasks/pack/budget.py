"""From weights and a token budget to how many tokens each source gives in each phase, exact to the token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from tasks.errors import ConfigError, DataFault
from tasks.pack.config import PackConfig, SourceShare


@dataclass(frozen=True)
class PhaseGrant:
    """What a source gives in one phase of a curriculum."""

    tokens: int
    wanted: int


@dataclass(frozen=True)
class Grant:
    """What a source gives to the mixture."""

    tokens: int  # budget over all epochs
    wanted: int  # what its weight, tokens or epochs asked for
    held: int  # tokens it has, each document once
    phases: tuple[PhaseGrant, ...] = ()  # the same by phase; empty without phases


def grants(config: PackConfig, held: Sequence[int]) -> list[Grant]:
    """The budget of each source; the budgets add up to total_tokens wherever the sources can fill it.

    A source with `tokens` or `epochs` gets exactly these (whole tokens, rounded down), the others share the rest by
    weight. Without a total the others give what they have, once. Each phase is shared out by itself, by its weights. A
    source that cannot fill its share within max_epochs gives all it can; with on_shortfall="spread" the rest goes to
    the others by weight, phase after phase, and what nobody can give is missing.

    Raises:
        DataFault: a source is empty, or cannot fill its share and on_shortfall is "refuse".
        ConfigError: the fixed budgets do not fit into the total.
    """
    empty = [source.name for source, tokens in zip(config.sources, held, strict=True) if not tokens]
    if empty:
        raise DataFault(
            f"sources without a single token: {', '.join(empty)}. A mixture that names a source and does not hold it "
            "is not what was asked for. See the rejects of the stages before, or take the source out of the mixture."
        )
    most = [_most(config, source, tokens) for source, tokens in zip(config.sources, held, strict=True)]
    wanted = _wanted_by_phase(config, held)
    if config.on_shortfall == "refuse":
        _require_enough(config.sources, held, most, [sum(parts) for parts in zip(*wanted, strict=True)])
    given: list[list[int]] = []
    left = list(most)
    for number, parts in enumerate(wanted):
        weights = _weights(config, number, parts)
        given.append(_fill(sum(parts), weights, left))
        left = [room - tokens for room, tokens in zip(left, given[-1], strict=True)]
    found: list[Grant] = []
    for i, tokens in enumerate(held):
        phases = tuple(PhaseGrant(g[i], w[i]) for g, w in zip(given, wanted, strict=True))
        total, asked = sum(phase.tokens for phase in phases), sum(phase.wanted for phase in phases)
        found.append(Grant(total, asked, tokens, phases if config.phases else ()))
    return found


def split(total: int, weights: Sequence[float]) -> list[int]:
    """Whole parts in proportion to the weights that add up to the total; the largest remainders are rounded up."""
    exact = [total * weight / sum(weights) for weight in weights]
    parts = [int(part) for part in exact]
    order = sorted(range(len(parts)), key=lambda i: (parts[i] - exact[i], i))
    for i in order[: total - sum(parts)]:
        parts[i] += 1
    return parts


def passes(held: int, epochs: float) -> int:
    """Tokens of so many epochs, rounded down; the number is taken as it is written (0.29 is 29/100)."""
    return math.floor(held * Fraction(str(epochs)))


def _most(config: PackConfig, source: SourceShare, held: int) -> int:
    if source.epochs is not None:
        return passes(held, source.epochs)
    if config.total_tokens is None and source.tokens is None:
        return held
    return passes(held, source.max_epochs)


def _wanted_by_phase(config: PackConfig, held: Sequence[int]) -> list[list[int]]:
    """For each phase the tokens that are asked of each source; without phases there is one."""
    if config.phases:
        assert config.total_tokens is not None
        totals = split(config.total_tokens, [phase.share for phase in config.phases])
        return [
            _split_some(total, [phase.weights.get(source.name, 0.0) for source in config.sources])
            for total, phase in zip(totals, config.phases, strict=True)
        ]
    fixed = [
        passes(tokens, source.epochs) if source.epochs is not None else source.tokens
        for source, tokens in zip(config.sources, held, strict=True)
    ]
    if config.total_tokens is None:
        return [[whole if tokens is None else tokens for tokens, whole in zip(fixed, held, strict=True)]]
    rest = config.total_tokens - sum(tokens or 0 for tokens in fixed)
    others = fixed.count(None)
    if others < len(fixed) and (rest < others or (not others and rest)):
        said = ", ".join(f"{s.name}: {n:,}" for s, n in zip(config.sources, fixed, strict=True) if n is not None)
        raise ConfigError(
            f"{said} of total_tokens={config.total_tokens:,} leave {rest:,} for {others} other sources: the "
            "budgets of a mixture add up to its total. Correct one of them, or leave total_tokens empty."
        )
    shared = _split_some(rest, [s.weight if n is None else 0.0 for s, n in zip(config.sources, fixed, strict=True)])
    return [[share if tokens is None else tokens for share, tokens in zip(shared, fixed, strict=True)]]


def _weights(config: PackConfig, phase: int, wanted: Sequence[int]) -> list[float]:
    """By what the sources share a phase, and what another cannot give of it."""
    if config.phases:
        return [config.phases[phase].weights.get(source.name, 0.0) for source in config.sources]
    if config.total_tokens is None or any(source.tokens or source.epochs for source in config.sources):
        return list(wanted)
    return [source.weight for source in config.sources]


def _require_enough(
    sources: Sequence[SourceShare], held: Sequence[int], most: Sequence[int], wanted: Sequence[int]
) -> None:
    short = [i for i in range(len(sources)) if wanted[i] > most[i]]
    if short:
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


def _split_some(total: int, weights: Sequence[float]) -> list[int]:
    """`split` over those with a weight; the others get nothing."""
    some = [i for i, weight in enumerate(weights) if weight > 0]
    parts = dict(zip(some, split(total, [weights[i] for i in some]), strict=True)) if some else {}
    return [parts.get(i, 0) for i in range(len(weights))]


def _fill(total: int, weights: Sequence[float], most: Sequence[int]) -> list[int]:
    """Shares by weight with ceilings: whoever reaches its ceiling stays there, the others share what is left."""
    given = [0] * len(weights)
    open_ = {i for i, weight in enumerate(weights) if weight > 0}
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
