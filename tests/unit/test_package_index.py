from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet.hostside.common import Failure
from fleet.hostside.package_index import explain, index_environment, without_credentials

PIP = "[global]\nindex-url = https://pip.example/simple\n"


@pytest.mark.parametrize(
    ("files", "environment", "expected"),
    [
        ({}, {}, {}),
        ({"etc/pip.conf": PIP}, {}, {"UV_DEFAULT_INDEX": "https://pip.example/simple"}),
        (
            {"etc/pip.conf": PIP, "home/.config/pip/pip.conf": "[install]\nindex_url = https://mine.example\n"},
            {},
            {"UV_DEFAULT_INDEX": "https://mine.example"},
        ),
        ({"etc/pip.conf": PIP}, {"PIP_INDEX_URL": "https://env.example"}, {"UV_DEFAULT_INDEX": "https://env.example"}),
        ({"etc/pip.conf": PIP}, {"PIP_CONFIG_FILE": os.devnull}, {}),
        (
            {"home/.pip/pip.conf": "[global]\nfind-links =\n    /a\n    /b\nno-index = true\ntrusted-host = a b\n"},
            {},
            {"UV_FIND_LINKS": "/a,/b", "UV_NO_INDEX": "1", "UV_INSECURE_HOST": "a b"},
        ),
        ({"etc/pip.conf": PIP}, {"UV_INDEX_URL": "https://uv.example"}, {"UV_INDEX_URL": "https://uv.example"}),
        ({"etc/pip.conf": PIP, "home/.config/uv/uv.toml": '[[index]]\nurl = "https://uv.example"\n'}, {}, {}),
        (
            {"etc/pip.conf": PIP, "etc/uv/uv.toml": 'cache-dir = "/x"\n'},
            {},
            {"UV_DEFAULT_INDEX": "https://pip.example/simple"},
        ),
        ({}, {"UV_NO_CONFIG": "1", "PYTHONPATH": "/x", "UV_OFFLINE": "1", "PIP_CERT": "/c"}, {"SSL_CERT_FILE": "/c"}),
        ({}, {"HTTPS_PROXY": "http://proxy"}, {"HTTPS_PROXY": "http://proxy"}),
    ],
)
def test_the_index_of_the_host_is_what_uv_is_told(
    files: dict[str, str], environment: dict[str, str], expected: dict[str, str], tmp_path: Path
) -> None:
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = index_environment(environment, tmp_path / "home", tmp_path)
    assert found == {"UV_INDEX_STRATEGY": "unsafe-best-match", **expected}


def test_pip_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "pip.conf").write_text("index-url = x\n")
    with pytest.raises(Failure, match=r"etc/pip.conf cannot be read"):
        index_environment({}, tmp_path, tmp_path)


# As uv 0.13.9 says it.
@pytest.mark.parametrize(
    ("said", "meaning"),
    [
        (
            "  cause: Because there is no version of click==8.1.9 and you require click==8.1.9, we can conclude",
            "the package index of this host has no click==8.1.9",
        ),
        (
            "  cause: Because nosuch was not found in the package registry and\n    you require nosuch==1, we can",
            "the package index of this host has no nosuch==1",
        ),
        (
            "Because click was not found in the provided package locations and you require click==8.1.8, we can",
            "the package index of this host has no click==8.1.8",
        ),
        (
            "  cause: Because click==8.1.8 has no usable wheels and you require click==8.1.8",
            "the package index of this host has no fitting wheel of click==8.1.8",
        ),
        (
            "error: Failed to download `click==8.1.8`\n  cause: Hash mismatch for `click==8.1.8`",
            "the package index of this host has another file of click==8.1.8 than the controller's",
        ),
        ("  cause: error sending request for url (http://x/)", "the package index of this host cannot be reached"),
        ("error: No space left on device", ""),
    ],
)
def test_what_uv_complains_of_is_explained(said: str, meaning: str) -> None:
    assert explain(said) == meaning


def test_the_password_of_an_index_is_not_repeated() -> None:
    assert without_credentials("fetch https://me:geheim@x/simple failed") == "fetch https://***@x/simple failed"
