"""The package index that a host's own settings name, for uv; and what it means when uv gets nothing from it.

uv reads its own settings. Where there are none but pip's, pip's index, links and certificates are passed on to it.
"""

from __future__ import annotations

import configparser
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from fleet.hostside.common import Failure, clean_environment, read_text

_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS")
_KEPT = (*_INDEX_VARIABLES, "UV_CONFIG_FILE", "UV_NO_INDEX", "UV_INSECURE_HOST", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS")
_KEPT_TOO = ("UV_INDEX_", "UV_KEYRING_PROVIDER", "UV_HTTP_TIMEOUT")
_INDEX_IN_FILE = re.compile(r"^\s*(\[\[(pip\.)?index\]\]|((extra-)?index-url|find-links|index)\s*=)", re.MULTILINE)
_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "no-index": "UV_NO_INDEX",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}


def index_environment(environment: Mapping[str, str], home: Path, system: Path = Path("/")) -> dict[str, str]:
    """Variables for uv to use the index of this host.

    Parameters
    ----------
    environment
        The present ones; what belongs to an index is kept of them.
    home, system
        Where the settings of the user and of the machine are.
    """
    kept = {name: value for name, value in environment.items() if name in _KEPT or name.startswith(_KEPT_TOO)}
    if not _uv_is_configured(environment, home, system):
        kept = {**_from_pip(environment, home, system), **kept}
    # Every file is named by its hash, so it does not matter which of several indexes it comes from.
    return {"UV_INDEX_STRATEGY": "unsafe-best-match", **clean_environment(environment), **kept}


def _uv_is_configured(environment: Mapping[str, str], home: Path, system: Path) -> bool:
    if any(environment.get(name) for name in (*_INDEX_VARIABLES, "UV_CONFIG_FILE")):
        return True
    files = [_user_settings(environment, home) / "uv/uv.toml", system / "etc/xdg/uv/uv.toml", system / "etc/uv/uv.toml"]
    return any(_INDEX_IN_FILE.search(read_text(path)) for path in files)


def _user_settings(environment: Mapping[str, str], home: Path) -> Path:
    return Path(environment.get("XDG_CONFIG_HOME") or home / ".config")


def _from_pip(environment: Mapping[str, str], home: Path, system: Path) -> dict[str, str]:
    options: dict[str, str] = {}
    for path in _pip_files(environment, home, system):
        options.update(_pip_options(path))
    for option in _PIP_TO_UV:
        value = environment.get("PIP_" + option.replace("-", "_").upper())
        if value:
            options[option] = value
    found = {}
    for option, value in options.items():
        words = value.split()
        if option == "no-index":
            words = ["1"] if value.strip().lower() in {"1", "true", "yes", "on"} else []
        if words:
            found[_PIP_TO_UV[option]] = ("," if option == "find-links" else " ").join(words)
    return found


def _pip_files(environment: Mapping[str, str], home: Path, system: Path) -> Iterator[Path]:
    """Pip's own, in its order; what comes later wins."""
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen == os.devnull:
        return
    yield system / "etc/xdg/pip/pip.conf"
    yield system / "etc/pip.conf"
    yield home / ".pip/pip.conf"
    yield _user_settings(environment, home) / "pip/pip.conf"
    yield Path(sys.prefix) / "pip.conf"
    if chosen:
        yield Path(chosen)


def _pip_options(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(read_text(path))
    except configparser.Error as error:
        first = str(error).splitlines()[0]
        raise Failure(f"{path} cannot be read: {first}", "installing", "mend it: pip cannot read it either") from error
    found = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found.update({name.replace("_", "-"): value for name, value in parser.items(section)})
    return {name: value for name, value in found.items() if name in _PIP_TO_UV}


_NO_NETWORK = r"error sending request|dns error|Connection refused|network was disabled|No route to host|timed out"
_SYMPTOMS = (
    (r"there is no version of (\S+)", "the package index of this host has no {}"),
    (
        r"was not found in the (?:package registry|provided package locations) and you require ([^\s,]+)",
        "the package index of this host has no {}",
    ),
    (r"[Bb]ecause (\S+) has no usable wheels", "the package index of this host has no fitting wheel of {}"),
    (r"Hash mismatch for `([^`]+)`", "the package index of this host has another file of {} than the controller's"),
    (_NO_NETWORK, "the package index of this host cannot be reached"),
)


def explain(output: str) -> str:
    """Say what uv's complaint about an index means; empty where it is about something else.

    Parameters
    ----------
    output
        What uv said.
    """
    text = " ".join(output.split())
    for pattern, meaning in _SYMPTOMS:
        match = re.search(pattern, text)
        if match:
            return meaning.format(*match.groups())
    return ""


def without_credentials(text: str) -> str:
    """Addresses of an index may hold a password, and uv repeats them.

    Parameters
    ----------
    text
        What uv said.
    """
    return re.sub(r"//[^/\s@]+@", "//***@", text)
