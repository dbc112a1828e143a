"""The database: calculations, the registry of workers, their events, and orders to the fleet.

The only package that imports the driver. Every driver error leaves it as a
:class:`~puffin.errors.DatabaseUnavailable` (try again later) or a :class:`~puffin.errors.DatabaseError` (will not
get better by itself).
"""

from puffin.store.calculations import Calculations
from puffin.store.control import Control, DrainNote
from puffin.store.driver import Member, connection_uri, location
from puffin.store.events import Event, EventRecord, Events, EventSelection, new_event_id
from puffin.store.follower import EventFollower, Position
from puffin.store.judge_seat import JudgeSeat, Tenure
from puffin.store.notifier import NotifierSeat, Sitting
from puffin.store.queue import Queue
from puffin.store.registry import Registry
from puffin.store.results import CalculationResult
from puffin.store.server import Store, wait_until_reachable

__all__ = [
    "CalculationResult",
    "Calculations",
    "Control",
    "DrainNote",
    "Event",
    "EventFollower",
    "EventRecord",
    "EventSelection",
    "Events",
    "JudgeSeat",
    "Member",
    "NotifierSeat",
    "Position",
    "Queue",
    "Registry",
    "Sitting",
    "Store",
    "Tenure",
    "connection_uri",
    "location",
    "new_event_id",
    "wait_until_reachable",
]
