"""How bad is what was found when something was looked at. Pure."""

from __future__ import annotations

from enum import Enum


class Severity(str, Enum):
    """What a finding means; what is worse comes first."""

    FAIL = "fail"
    WARN = "warn"
    OK = "ok"
