"""What is still to be told, to whom, and when it is tried again; pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from fleet.notify.notices import Kind, Notice, from_json, to_json

_PAUSES_S = (2.0, 6.0, 20.0, 60.0, 180.0, 600.0, 600.0, 600.0, 600.0)
_MOST_WAITING = 200


@dataclass(frozen=True)
class Waiting:
    """A notice that one hook was not told yet.

    Parameters
    ----------
    notice
        The notice.
    target
        The hook.
    tries
        How often it was tried.
    due
        When to try again, naive and in UTC; None for at once.
    """

    notice: Notice
    target: str
    tries: int = 0
    due: datetime | None = None

    @property
    def last_try(self) -> bool:
        """Whether it is given up if it fails once more."""
        return self.tries >= len(_PAUSES_S)

    def is_same(self, other: Waiting) -> bool:
        """Whether it is the same notice for the same hook.

        Parameters
        ----------
        other
            Another one.
        """
        return (self.target, self.notice.id) == (other.target, other.notice.id)


@dataclass(frozen=True)
class Outbox:
    """All that is still to be told, for each hook in its order."""

    waiting: tuple[Waiting, ...] = ()

    def to_json(self) -> list[dict[str, Any]]:
        """For :meth:`from_json`."""
        return [
            {
                "notice": to_json(each.notice),
                "target": each.target,
                "tries": each.tries,
                "due": each.due.isoformat() if each.due else "",
            }
            for each in self.waiting
        ]

    @classmethod
    def from_json(cls, data: Iterable[Mapping[str, Any]]) -> Outbox:
        """What :meth:`to_json` made.

        Parameters
        ----------
        data
            What it made.
        """
        return cls(
            tuple(
                Waiting(
                    from_json(each["notice"]),
                    each["target"],
                    int(each["tries"]),
                    datetime.fromisoformat(each["due"]) if each["due"] else None,
                )
                for each in data
            )
        )

    def only(self, targets: Mapping[Kind, Sequence[str]]) -> Outbox:
        """The same without what is for hooks that are no longer in hosts.yaml.

        Parameters
        ----------
        targets
            The hooks by kind.
        """
        return Outbox(tuple(each for each in self.waiting if each.target in targets.get(each.notice.kind, ())))

    def with_notices(
        self, notices: Iterable[Notice], targets: Mapping[Kind, Sequence[str]]
    ) -> tuple[Outbox, tuple[Waiting, ...]]:
        """The same with more to tell, and what is dropped since too much waits for a hook: the oldest.

        Parameters
        ----------
        notices
            What is new.
        targets
            The hooks by kind.
        """
        known = {(each.target, each.notice.id) for each in self.waiting}
        new = [Waiting(notice, target) for notice in notices for target in targets.get(notice.kind, ())]
        whole = [*self.waiting, *(each for each in new if (each.target, each.notice.id) not in known)]
        dropped: list[Waiting] = []
        for target in {each.target for each in whole}:
            dropped += [each for each in whole if each.target == target][:-_MOST_WAITING]
        gone = {(each.target, each.notice.id) for each in dropped}
        return Outbox(tuple(each for each in whole if (each.target, each.notice.id) not in gone)), tuple(dropped)

    def ready(self, now: datetime, busy: AbstractSet[str] = frozenset()) -> tuple[Waiting, ...]:
        """What is to be told now: the first of each hook, if its time has come.

        Parameters
        ----------
        now
            The present, naive and in UTC.
        busy
            Hooks that are being told something.
        """
        first = {each.target: each for each in reversed(self.waiting)}
        return tuple(
            each
            for each in self.waiting
            if first[each.target] is each and each.target not in busy and (each.due is None or each.due <= now)
        )

    def told(self, waiting: Waiting) -> Outbox:
        """The same without what was told, or is given up.

        Parameters
        ----------
        waiting
            What that was.
        """
        return Outbox(tuple(each for each in self.waiting if not each.is_same(waiting)))

    def failed(self, waiting: Waiting, now: datetime) -> Outbox:
        """The same after a try that failed: it is tried again after a pause that grows, and in the end given up.

        Parameters
        ----------
        waiting
            What was tried.
        now
            The present, naive and in UTC.
        """
        if waiting.last_try:
            return self.told(waiting)
        later = replace(waiting, tries=waiting.tries + 1, due=now + timedelta(seconds=_PAUSES_S[waiting.tries]))
        return Outbox(tuple(later if each.is_same(waiting) else each for each in self.waiting))
