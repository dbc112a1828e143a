"""Takes calculations for a worker, and gives back those that it may have taken without ever learning of it."""

from __future__ import annotations

from puffin.attempt import Workbench
from puffin.calculations import Claim, Claimant, program_names
from puffin.errors import DatabaseUnavailable


class Claims:
    """What one worker takes from its databases.

    ``in_doubt`` is whether something may be pending in its name that it does not run.

    Parameters
    ----------
    bench
        What it shares with the worker's attempts.
    claimant
        Who claims.
    """

    def __init__(self, bench: Workbench, claimant: Claimant) -> None:
        self._bench = bench
        self._claimant = claimant
        self._orders = tuple(bench.kinds)
        self._programs = program_names(bench.settings.available_programs)
        self._has_claimed = False
        self._silent = False
        self.in_doubt = True

    def take(self) -> Claim | None:
        """Claim a calculation; None if there is none, or if no database answers."""
        try:
            if self.in_doubt:
                self.give_back_what_is_not_run()
            self.in_doubt = self._has_claimed = True
            claim = self._take_from_first()
            self.in_doubt = False
        except DatabaseUnavailable as error:
            # The claim may have succeeded all the same: what it took is found and given back before the next.
            if not self._silent:
                self._bench.worklog.warning(f"no work to be had: {error}")
            self._silent = True
            return None
        self._silent = False
        return claim

    def _take_from_first(self) -> Claim | None:
        for name in self._bench.store.names:
            claim = self._bench.store.calculations(name).claim(
                self._claimant, self._bench.settings.resources, self._orders, self._programs
            )
            if claim is not None:
                return claim
        return None

    def give_back_what_is_not_run(self) -> None:
        """Give back what is pending in this worker's name: it runs nothing now, and nobody here has its name.

        On another host, or with another lock, somebody may, by mistake: what runs there is left to the judge.
        """
        # What this incarnation took without learning of it never ran.
        loss = None if self._has_claimed else self._bench.loss("its worker was ended while it ran")
        for name in self._bench.store.names:
            calculations = self._bench.store.calculations(name)
            for pending in calculations.pending(self._claimant.executor):
                if not pending.is_proven_dead(self._claimant):
                    continue
                if status := calculations.reset(pending, loss):
                    told = loss or self._bench.loss("the answer to its claim was lost")
                    self._bench.worklog.warning(f"given back: {told.reason}", pending.id)
                    self._bench.reporter.lost("given_back", pending.id, told, status)
