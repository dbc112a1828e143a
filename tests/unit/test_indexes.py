"""uv is told what pip knows."""

from __future__ import annotations

import pytest

from puffin.indexes import uv_environment

PIP_CONFIGURATION = """\
global.index-url='https://mirror.example.org/simple'
global.extra-index-url='file:///a file:///b'
install.find-links='/wheels /more'
:env:.cert='/etc/ca.crt'
download.index-url='https://not-for-installing.example.org'
"""


@pytest.mark.parametrize(
    ("configuration", "environment", "expected"),
    [
        ("", {}, {}),
        (
            PIP_CONFIGURATION,
            {},
            {
                "UV_DEFAULT_INDEX": "https://mirror.example.org/simple",
                "UV_EXTRA_INDEX_URL": "file:///a file:///b",
                "UV_FIND_LINKS": "/wheels,/more",
                "SSL_CERT_FILE": "/etc/ca.crt",
                "UV_INDEX_STRATEGY": "unsafe-best-match",
            },
        ),
        (PIP_CONFIGURATION, {"UV_DEFAULT_INDEX": "https://mine.example.org"}, {}),
        ("global.cert='/theirs'", {"SSL_CERT_FILE": "/mine"}, {}),
    ],
)
def test_uv_is_told_what_pip_knows(configuration: str, environment: dict[str, str], expected: dict[str, str]) -> None:
    assert uv_environment(configuration, environment, "install") == expected


@pytest.mark.parametrize(
    ("config", "present", "expected"),
    [
        ("", {}, {}),
        (
            "global.index-url='https://mirror.example/simple'\nglobal.timeout='9'",
            {},
            {"UV_DEFAULT_INDEX": "https://mirror.example/simple"},
        ),
        (
            "global.index-url='https://a.example'\n:env:.index-url='https://b.example'",
            {},
            {"UV_DEFAULT_INDEX": "https://b.example"},
        ),
        (
            "global.extra-index-url='https://a.example\\nhttps://b.example'",
            {},
            {
                "UV_EXTRA_INDEX_URL": "https://a.example https://b.example",
                "UV_INDEX_STRATEGY": "unsafe-best-match",
            },
        ),
        ("global.find-links='/a /b'", {}, {"UV_FIND_LINKS": "/a,/b"}),
        ("global.index-url='https://a.example'", {"UV_INDEX_URL": "https://mine.example"}, {}),
        ("global.cert='/a.pem'", {"SSL_CERT_FILE": "/mine.pem"}, {}),
        ("install.index-url='https://other.example'", {}, {}),
    ],
)
def test_uv_follows_pip(config: str, present: dict[str, str], expected: dict[str, str]) -> None:
    assert uv_environment(config, present, "download") == expected
