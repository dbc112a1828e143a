"""SCINE Database: the library through which job classes read and write."""

from __future__ import annotations

from puffin.programs.module import ScineModule


class Database(ScineModule):
    """SCINE Database."""

    name = "database"
    module = "scine_database"
    package = "scine-database"
    features = ("Manager", "Calculation", "Structure")
