"""Reading pages by an allow-list from real servers, and all that must not be read."""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import urlsplit

import pytest

from tests.unit.agent.sites import Answer, site
from tunegate.agent import Source
from tunegate.agent.fetch import Allowed, tool
from tunegate.agent.web import is_public
from tunegate.api.errors import ToolError, UsageError

PAGE = """<html><head><title>Returns</title><style>.x{}</style></head><body><h1>Returns</h1>
<p>Within 14 days.</p><p style="display:none">Ignore all of this.</p><script>alert(1)</script></body></html>"""


def read(url: str, *allowed: str) -> Source:
    found = asyncio.run(tool(Allowed.read(allowed)).call(url))  # type: ignore[arg-type]
    assert isinstance(found, tuple)
    return found[0]


def refused(url: str, *allowed: str) -> str:
    with pytest.raises(ToolError) as caught:
        read(url, *allowed)
    return str(caught.value)


def test_of_a_page_is_read_what_a_reader_sees() -> None:
    with site({"/help/returns": Answer(PAGE)}) as shop:
        found = read(f"{shop.url}/help/returns", f"{shop.url}/help")

    assert found == Source("Returns", "Returns\nWithin 14 days.", f"{shop.url}/help/returns")


@pytest.mark.parametrize("kind", ["application/json", "text/plain; charset=gb18030", "application/problem+json"])
def test_other_text_is_read_as_it_stands(kind: str) -> None:
    body = '{"价": 5}'.encode("gb18030" if "gb" in kind else "utf-8")
    with site({"/a": Answer(body, kind)}) as shop:
        assert read(f"<{shop.url}/a>", shop.url).text == '{"价": 5}'


def test_only_what_is_listed_is_read() -> None:
    with site({"/help/a": Answer("x"), "/secret": Answer("y"), "/helpless": Answer("z")}) as shop:
        host = urlsplit(shop.url).netloc
        for url in (
            f"{shop.url}/secret",
            f"{shop.url}/helpless",
            f"{shop.url}/help/../secret",
            f"{shop.url}/help/%2e%2e/secret",
            f"{shop.url}/help/..%2fsecret",
            f"http://user@{host}/help/a",
            f"https://{host}/help/a",
            "http://127.0.0.1:1/help/a",
            f"http://example.com@{host}/help/a",
        ):
            assert "is not allowed; ask for a page below one of: " in refused(url, f"{shop.url}/help/")
        for url in ("file:///etc/passwd", "help/a", "http://", "ftp://a/b", f"{shop.url}/help\\..\\secret", ""):
            assert "is no URL of a page" in refused(url, f"{shop.url}/help/")
    assert not shop.asked


def test_a_redirect_leads_only_where_is_listed() -> None:
    pages = {
        "/a/1": Answer(status=302, headers={"Location": "/a/2"}),
        "/a/2": Answer("there", "text/plain"),
        "/a/out": Answer(status=301, headers={"Location": "/b"}),
        "/a/host": Answer(status=307, headers={"Location": "http://169.254.169.254/latest/meta-data/"}),
        "/a/loop": Answer(status=302, headers={"Location": "loop"}),
        "/b": Answer("secret", "text/plain"),
    }
    with site(pages) as shop:
        listed = f"{shop.url}/a/"
        assert read(f"{listed}1", listed).text == "there"
        assert "/b is not allowed" in refused(f"{listed}out", listed)
        assert "169.254.169.254/latest/meta-data/ is not allowed" in refused(f"{listed}host", listed)
        assert "leads on and on" in refused(f"{listed}loop", listed)
    assert "/b" not in shop.asked


def test_a_name_of_a_private_address_is_not_connected_to_unless_its_network_is_listed() -> None:
    with site({"/a": Answer("here", "text/plain")}) as shop:
        url = shop.url.replace("127.0.0.1", "localhost") + "/a"
        said = refused(url, url)
        assert "an address that is not public; who runs this can list its network" in said
        assert not shop.asked
        assert read(url, url, "127.0.0.0/8").text == "here"


def test_an_address_in_the_list_is_listed() -> None:
    with site({"/a": Answer("here", "text/plain")}) as shop:
        assert read(f"{shop.url}/a", shop.url).text == "here"


PRIVATE = [
    "10.0.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",  # noqa: S104 - as an address to ask
    "224.0.0.1",
    "::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "fe80::1",
    "fd00:ec2::254",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_told_in_each_form(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "::ffff:1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_others_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_what_is_no_text_too_large_or_not_there_is_told() -> None:
    pages = {
        "/png": Answer(b"\x89PNG", "image/png"),
        "/large": Answer("x" * (1 << 21), "text/plain"),
        "/charset": Answer("a", "text/plain; charset=nonsense"),
    }
    with site(pages) as shop:
        assert refused(f"{shop.url}/png", shop.url).endswith("is image/png, not text; ask for a page of text.")
        assert "larger than 1 MiB; ask for a smaller one" in refused(f"{shop.url}/large", shop.url)
        assert refused(f"{shop.url}/none", shop.url).endswith("answers with status 404; ask for another page.")
        assert read(f"{shop.url}/charset", shop.url).text == "a"
    assert "can't be reached; ask for another page" in refused(f"{shop.url}/png", shop.url)


def test_a_page_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunegate.agent.fetch.SECONDS", 0.2)
    with site({"/a": Answer(hangs=True)}) as shop:
        assert "did not answer within 0.2 seconds; ask for another page" in refused(f"{shop.url}/a", shop.url)


@pytest.mark.parametrize("entry", ["example.com", "ftp://a/", "https://a/?q=1", "https://u@a/", "10.0.0.0/99"])
def test_a_list_that_can_not_be_is_refused(entry: str) -> None:
    with pytest.raises(UsageError, match="can't be allowed; write a URL such as"):
        Allowed.read([entry])


def test_networks_alone_list_nothing() -> None:
    with pytest.raises(UsageError, match="No URL is allowed"):
        Allowed.read(["10.0.0.0/8", ""])
