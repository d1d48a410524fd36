"""Drops texts by the host they come from: by the end of its name, or by categories of host lists."""

from typing import Self

import numpy as np
from pydantic import Field, model_validator

from tasks.config import StageConfig
from tasks.ingest.filters.rule import Limit
from tasks.ingest.hosts import host_of, host_table
from tasks.ingest.texts import Texts

REJECTED = (  # Swallow Corpus v1; its other labels (audio-video, blog, radio …) are allowed
    *("adult", "mixed_adult", "shopping", "cryptojacking", "games", "redirector", "strict_redirector"),
    *("strong_redirector", "vpn", "social_networks", "ddos", "gambling", "publicite", "bitcoin", "dating", "phishing"),
    *("filehosting", "agressif", "chat", "celebrity", "financial", "manga", "remote-control", "webmail", "malware"),
    *("doh", "warez"),
)


class UrlRules(StageConfig):
    """Swallow Corpus v1. The lists themselves are yours to fetch: they are large, and change every week."""

    blocked_endings: tuple[str, ...] = Field(
        default=(".5ch.net", "wikipedia.org"),
        description="Ends of host names; Wikipedia is a source of its own (Swallow v1: .5ch.net, wikipedia.org).",
    )
    lists: str = Field(
        default="", description="Directory (URL) with CATEGORY/domains, as UT1 has it; empty = no lists."
    )
    lists_sha256: str = Field(
        default="", description="Digest of those files; a wrong one is answered with the right one."
    )
    rejected: tuple[str, ...] = Field(default=REJECTED, description="Categories whose hosts are dropped (Swallow v1).")

    @model_validator(mode="after")
    def _lists_are_pinned(self) -> Self:
        if self.lists and len(self.lists_sha256) < 12:
            host_table(self.lists, self.rejected, "")  # its error names the digest
        return self


def measure(texts: Texts, rules: UrlRules) -> dict[str, np.ndarray]:
    """1 where a host ends so, or stands in a category, else 0; a text without address is in none."""
    hosts = [host_of(url) for url in texts.urls] if texts.urls else [""] * len(texts)
    columns = {"blocked": np.array([host.endswith(rules.blocked_endings) for host in hosts], np.int64)}
    if rules.lists:
        table = host_table(rules.lists, rules.rejected, rules.lists_sha256)
        columns |= {category: table.listed(hosts, category).astype(np.int64) for category in rules.rejected}
    return columns


def limits(rules: UrlRules) -> tuple[Limit, ...]:
    categories = rules.rejected if rules.lists else ()
    return (
        Limit("url:blocked", "blocked", "above", 0),
        *(Limit(f"url:{category}", category, "above", 0) for category in categories),
    )
