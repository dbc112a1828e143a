"""Puts a calculation into a database: ``python submit.py mongodb://db.example:27017 explore``."""

from __future__ import annotations

import sys

from puffin.documents import Model, Request
from puffin.settings import DatabaseSettings
from puffin.store import Store

store = Store(DatabaseSettings(uri=sys.argv[1], name=sys.argv[2]))
settings = {"force_constant": 575.0, "mass_1": 1.00784, "mass_2": 1.00784}  # hydrogen
request = Request("harmonic_frequency", Model(), settings=settings, memory=0.5, disk=0.1)
print(*store.submit(sys.argv[2], [(None, request)]))
store.close()
