"""Which package indexes pip was told to use, in uv's words: uv reads none of pip's settings."""

from __future__ import annotations

import ast
from collections.abc import Mapping

_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_EXTRA_INDEX_URL",
    "find-links": "UV_FIND_LINKS",
    "trusted-host": "UV_INSECURE_HOST",
    "cert": "SSL_CERT_FILE",
}
_UV_INDEX_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_CONFIG_FILE")


def uv_environment(pip_config: str, environment: Mapping[str, str], command: str) -> dict[str, str]:
    """Translate the output of ``pip config list`` into variables of uv.

    Parameters
    ----------
    pip_config
        Lines such as ``global.index-url='https://...'``; later lines win, as they do in pip.
    environment
        Present variables: whoever set uv's index there is left alone, and no variable is changed.
    command
        The command of pip that uv stands in for: its section of the settings counts too.
    """
    if any(name in environment for name in _UV_INDEX_VARIABLES):
        return {}
    options = {}
    for line in pip_config.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.rpartition(".")
        if section in {"global", command, ":env:"} and option in _PIP_TO_UV:
            options[option] = str(ast.literal_eval(value))
    variables = {
        _PIP_TO_UV[option]: ("," if option == "find-links" else " ").join(value.split())
        for option, value in options.items()
    }
    if "UV_EXTRA_INDEX_URL" in variables:  # pip takes the best version of all indexes
        variables["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    return {name: value for name, value in variables.items() if name not in environment}
