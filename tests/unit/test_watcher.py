"""What a worker that waits for news is told when there will be none."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import Mock

from puffin.errors import DatabaseError
from puffin.watcher import Proof, Watcher
from tests.lab.worker import until


def test_who_waits_for_news_is_woken_when_the_server_ceases_to_tell() -> None:
    """It would wait for minutes, as it may where it is told, instead of asking every few seconds."""
    woken: list[bool] = []

    def news() -> Iterator[bool]:
        yield True
        until(lambda: woken, "the first news to be heard of")
        raise DatabaseError("the server has no change streams any more")

    proof = Proof(Mock(), "me")
    watcher = Watcher(Mock(news=news), proof, Mock(), lambda: woken.append(watcher.is_trusted))
    watcher.start()
    watcher.want(True)
    try:
        until(lambda: len(woken) == 2, "the second word")
    finally:
        watcher.stop()
    assert woken == [True, False]
    assert watcher.has_news()
