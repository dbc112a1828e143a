"""One thing that was looked at, and how it is. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from puffin.severity import Severity

DEPLOY = "run: puffin-fleet deploy --host {host}"
"""An advice; like every other it is a format, into which the host's name goes."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Parameters
    ----------
    host
        Name of the host in hosts.yaml; empty for the whole fleet.
    check
        What was looked at, in one word or two.
    severity
        Whether workers can live with it.
    what
        What was found.
    advice
        What to do next; empty where nothing has to be done.
    """

    host: str
    check: str
    severity: Severity
    what: str
    advice: str = ""


Checked = tuple[str, Severity, str, str]
"""A finding whose host is still to be said."""


def ok(check: str, what: str) -> Checked:
    """It is as it should be."""
    return check, Severity.OK, what, ""


def warn(check: str, what: str, advice: str) -> Checked:
    """Workers can live with it."""
    return check, Severity.WARN, what, advice


def fail(check: str, what: str, advice: str) -> Checked:
    """Workers cannot live with it."""
    return check, Severity.FAIL, what, advice


def literal(text: str) -> str:
    """Text from elsewhere in an advice, which is a format."""
    return text.replace("{", "{{").replace("}", "}}")
