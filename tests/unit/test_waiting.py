"""What hosts that are watched at once ask the database together."""

from __future__ import annotations

import pytest

from fleet.deployment.waiting import shared
from puffin.errors import DatabaseUnavailable
from puffin.store import WorkerRecord


def test_what_one_host_has_read_the_others_take_over() -> None:
    reads: list[int] = []

    def read() -> list[WorkerRecord]:
        reads.append(1)
        return []

    together, alone = shared(read, age_s=3600), shared(read, age_s=0)
    for _ in range(3):
        assert together() == []
    assert len(reads) == 1
    for _ in range(3):
        alone()
    assert len(reads) == 4


def test_that_the_database_is_away_is_found_out_once_for_all() -> None:
    reads: list[int] = []

    def read() -> list[WorkerRecord]:
        reads.append(1)
        raise DatabaseUnavailable("no answer")

    together = shared(read, age_s=3600)
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable, match="no answer"):
            together()
    assert len(reads) == 1
