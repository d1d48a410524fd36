"""Hosts: ends of names and categories of lists, whole names only, and reasons that say which."""

import pytest

from tasks.ingest.filters import verdicts
from tasks.ingest.filters.url import UrlRules
from tasks.ingest.hosts import host_of
from tasks.ingest.texts import Texts


def reason(url: str, rules: UrlRules) -> str | None:
    return verdicts.judge(Texts(["あ"], [url]), {"url": rules}).reasons[0]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://User:pw@Example.ORG.:8080/a?b#c", "example.org"),
        ("http://[2001:db8::1]/", "2001:db8::1"),
        ("http://[broken/", ""),
        ("pages/a.html", ""),
        ("", ""),
    ],
)
def test_the_host_of_an_address(url, host):
    assert host_of(url) == host


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://hayabusa.5ch.net/test", "url:blocked"),
        ("https://5ch.net/", None),
        ("https://ja.wikipedia.org/wiki/x", "url:blocked"),
        ("https://wikipedia.org.example.com/", None),
        ("https://example.com/wikipedia.org", None),
        ("", None),
    ],
)
def test_the_end_of_a_host_decides(url, verdict):
    assert reason(url, UrlRules()) == verdict


@pytest.fixture
def lists(tmp_path):
    for category, hosts in {"adult": "bad.example\nBAD2.example \n", "games": "play.example\n"}.items():
        (tmp_path / category).mkdir()
        (tmp_path / category / "domains").write_text(hosts)
    return tmp_path


def rules_of(lists) -> UrlRules:
    with pytest.raises(ValueError, match="lists_sha256=") as told:
        UrlRules(lists=str(lists), rejected=("adult", "games"))
    digest = str(told.value).split("lists_sha256=")[1][:16]
    return UrlRules(lists=str(lists), rejected=("adult", "games"), lists_sha256=digest)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("https://bad.example/", "url:adult"),
        ("https://bad2.example/", "url:adult"),
        ("https://play.example/x", "url:games"),
        ("https://www.bad.example/", None),
        ("https://good.example/", None),
        ("no address", None),
    ],
)
def test_a_listed_host_is_dropped_with_its_category(lists, url, verdict):
    assert reason(url, rules_of(lists)) == verdict


def test_lists_that_changed_are_refused(lists):
    rules = rules_of(lists)
    (lists / "games" / "domains").write_text("other.example\n")
    from tasks.ingest.hosts import host_table

    host_table.cache_clear()
    with pytest.raises(ValueError, match="other lists would give another corpus"):
        reason("https://play.example/", rules)


def test_a_category_without_a_file_is_refused(lists):
    with pytest.raises(ValueError, match="vpn/domains does not exist"):
        UrlRules(lists=str(lists), rejected=("vpn",))


def test_texts_without_addresses_are_in_no_list():
    assert verdicts.judge(Texts(["あ", "い"]), {"url": UrlRules()}).reasons == [None, None]
