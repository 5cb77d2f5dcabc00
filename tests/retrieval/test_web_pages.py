import asyncio
import contextlib
import gzip
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchUnavailable, UserError
from searchr1.retrieval.online import pages
from searchr1.retrieval.online.pages import Pages, PageSettings, excerpt, is_public
from searchr1.retrieval.online.web import Web, WebRetriever

pytest.importorskip("trafilatura", reason="needs pip install 'searchr1[web]'")

FOOD = "".join(f"<p>Paragraph {i} talks about food, markets and prices in some detail.</p>" for i in range(40))
ARTICLE = f"""<html><head><title>Dune</title></head><body><nav>Home | Login</nav><article><h1>Dune</h1>{FOOD}
<p>Dune was written by Frank Herbert, who was born in Tacoma.</p>{FOOD}</article></body></html>""".encode()
HTML = "text/html; charset=utf-8"


class Handler(BaseHTTPRequestHandler):
    hosts: list[str] = []  # noqa: RUF012 (a server makes an instance for each request)

    def do_GET(self) -> None:
        self.hosts.append(self.headers["host"])
        path, _, argument = self.path.partition("?")
        answers: dict[str, tuple[int, dict[str, str], bytes]] = {
            "/article": (200, {"content-type": HTML}, ARTICLE),
            "/plain": (200, {"content-type": "text/plain; charset=latin-1"}, "Dune caf\xe9.".encode("latin-1")),
            "/bogus": (200, {"content-type": "text/plain; charset=bogus"}, "Dune caf\xe9.".encode()),
            "/hex": (200, {"content-type": "text/plain; charset=hex"}, b"Dune."),
            "/small": (200, {"content-type": HTML, "content-encoding": "gzip"}, gzip.compress(ARTICLE)),
            "/false": (200, {"content-type": HTML, "content-encoding": "gzip"}, ARTICLE),
            "/odd": (200, {"content-type": HTML, "content-encoding": "br"}, ARTICLE),
            "/nested": (200, {"content-type": HTML}, b"<div>" * 30_000),
            "/zipped": (200, {"content-type": HTML, "content-encoding": "gzip"}, gzip.compress(b"x" * 300_000)),
            "/large": (200, {"content-type": HTML}, b"x" * 300_000),
            "/pdf": (200, {"content-type": "application/pdf"}, b"%PDF"),
            "/untyped": (200, {}, b"text"),
            "/missing": (404, {"content-type": HTML}, ARTICLE),
            "/empty": (200, {"content-type": HTML}, b""),
            "/hop": (302, {"location": "/article"}, b""),
            "/loop": (302, {"location": "/loop"}, b""),
            "/astray": (302, {"location": argument}, b""),
        }
        if path == "/slow":
            time.sleep(0.5)
            path = "/article"
        status, headers, body = answers[path]
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client may have had enough
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{listener.server_address[1]}"
        listener.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def read(url: str, limit: int = 60, **settings: Any) -> str:
    reader = Pages(PageSettings(**{"allow_private": True, "max_bytes": 200_000, **settings}))
    text = await reader.text(url, "who wrote dune herbert", limit)
    assert reader.counts() == {"pages": 1, "pages_failed": int(not text)}
    await reader.aclose()
    return text


async def test_the_part_of_the_article_that_fits_the_query_is_read(server: str) -> None:
    expected = "Dune was written by Frank Herbert, who was born in Tacoma."
    assert await read(server + "/article") == expected
    assert await read(server + "/hop") == expected
    assert await read(server + "/small") == expected
    whole = await read(server + "/article", limit=100_000)
    assert expected in whole
    assert "Login" not in whole


async def test_plain_text_is_decoded(server: str) -> None:
    assert await read(server + "/plain") == "Dune café."
    assert await read(server + "/bogus") == "Dune café."
    assert await read(server + "/hex") == "Dune."


@pytest.mark.parametrize("path", [
    "/pdf", "/untyped", "/missing", "/empty", "/false", "/odd", "/nested", "/large", "/zipped", "/loop", "/nowhere",
    "/astray?ftp://127.0.0.1/x", "/astray?http://[/", "/astray?http://h:99999/",
])  # fmt: skip
async def test_what_cannot_be_read_is_empty(server: str, path: str) -> None:
    assert await read(server + path) == ""


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no url",
        "ftp://h/x",
        "file:///etc/passwd",
        "http://",
        "http://[::1",
        "data:,x",
        f"http://{'a' * 70}.example/",
        "http://127.0.0.1:99999/",
        "http://.example/",
        "http://h\x00/",
        "http://127.0.0.1:0/",
    ],
)
async def test_what_is_no_page_is_empty(url: str) -> None:
    assert await read(url) == ""


async def test_a_slow_page_and_a_dead_host_are_given_up(server: str) -> None:
    assert await read(server + "/slow", timeout=0.1) == ""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    assert await read(f"http://127.0.0.1:{port}/article") == ""


async def test_this_machine_is_not_asked(server: str) -> None:
    port = server.rpartition(":")[2]
    asked = len(Handler.hosts)
    for url in (server, f"http://localhost:{port}", f"http://[::ffff:127.0.0.1]:{port}", f"http://2130706433:{port}",
                f"http://0.0.0.0:{port}", f"http://u:p@127.1:{port}"):  # fmt: skip
        assert await read(f"{url}/article", allow_private=False) == ""
    assert len(Handler.hosts) == asked


async def test_the_address_that_was_checked_is_the_one_connected_to(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves to this machine only after it was checked does not lead here."""
    port = server.rpartition(":")[2]
    resolved: list[str] = []

    async def resolve(host: str) -> list[str]:
        resolved.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(pages, "_resolve", resolve)
    assert await read(f"http://dune.example:{port}/article") != ""
    assert Handler.hosts[-1] == f"dune.example:{port}"
    assert resolved == ["dune.example"]
    assert await read(f"http://dune.example:{port}/article", allow_private=False) == ""


async def test_a_redirect_into_the_private_network_is_refused(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = pages.is_public
    monkeypatch.setattr(pages, "is_public", lambda address: address == "127.0.0.1" or real(address))
    asked = len(Handler.hosts)
    assert await read(f"{server}/hop", allow_private=False) != ""
    for target in ("http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/"):
        assert await read(f"{server}/astray?{target}", allow_private=False) == ""
    assert len(Handler.hosts) == asked + 5


async def test_a_proxy_of_the_environment_gets_the_name(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server)

    async def resolve(host: str) -> list[str]:
        raise socket.gaierror("only the proxy knows names")

    monkeypatch.setattr(pages, "_resolve", resolve)
    await read("http://dune.example/article", allow_private=False)
    assert Handler.hosts[-1] == "dune.example"
    monkeypatch.setattr(pages, "_resolve", lambda host: asyncio.sleep(0, ["10.0.0.1"]))
    assert await read("http://intranet.example/article", allow_private=False) == ""
    assert Handler.hosts[-1] == "dune.example"


@pytest.mark.parametrize("address", [
    "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.169.254", "172.16.0.1", "192.168.1.1", "224.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1%eth0", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "64:ff9b::7f00:1",
    "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe",
])  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_addresses_that_are_public(address: str) -> None:
    assert is_public(address)


async def test_pages_take_the_place_of_snippets_and_a_failing_page_keeps_its_own(server: str) -> None:
    items = [
        {"link": f"{server}/missing", "title": "A", "snippet": "snippet a"},
        {"link": f"{server}/article", "title": "B", "snippet": "who wrote dune"},
        {"link": f"{server}/pdf", "title": "C", "snippet": "snippet c"},
        {"title": "D", "snippet": "snippet d"},
    ]
    transport = httpx.MockTransport(lambda _: httpx.Response(200, json={"searchParameters": {}, "organic": items}))
    settings = Web("serper", pages=True, max_characters=60, page=PageSettings(allow_private=True))
    async with WebRetriever(settings, "key-key-key", transport=transport) as retriever:
        (found,) = await retriever.search(["frank herbert"], 4)
        assert [(passage.title, passage.text) for passage in found] == [
            ("A", "snippet a"),
            ("B", "Dune was written by Frank Herbert, who was born in Tacoma."),
            ("C", "snippet c"),
            ("D", "snippet d"),
        ]
        assert retriever.counts() == {
            "requests": 1, "retries": 0, "failures": 0, "cost": 0.001, "pages": 3, "pages_failed": 2
        }  # fmt: skip


async def test_reading_is_bounded_in_time(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_READING_SECONDS", 0.05)
    monkeypatch.setattr(pages, "_extractor", lambda: lambda body: time.sleep(0.3) or "late")
    assert await read(server + "/article") == ""


async def test_a_page_that_breaks_the_parser_keeps_its_snippet(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(body: bytes) -> str:
        raise RecursionError("too deep")

    monkeypatch.setattr(pages, "_extractor", lambda: broken)
    assert await read(server + "/article") == ""


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trafilatura", None)
    with pytest.raises(UserError, match=r"pages=true needs trafilatura: pip install 'searchr1\[web\]'"):
        WebRetriever(Web("serper", pages=True), "key")


@given(st.text().map("http://{}".format) | st.text(alphabet="htps:/[]@%.#?\\x00é1") | st.text())
def test_any_text_is_an_address_or_none(text: str) -> None:
    try:
        url = pages._parse(text)
    except SearchUnavailable:
        return
    assert url.scheme in ("http", "https")
    assert url.raw_host.decode("ascii")
    assert url.copy_with(host="::1").host == "::1"


@given(st.text(alphabet="ab c\n", max_size=60), st.text(alphabet="abc ", max_size=10), st.integers(1, 30))
def test_an_excerpt_is_never_too_long_and_always_of_the_text(text: str, wanted: str, limit: int) -> None:
    found = excerpt(text, wanted, limit)
    assert len(found) <= limit
    assert "".join(found.split()) in "".join(text.split())
    if len(text.strip()) <= limit:
        assert found == text.strip()
