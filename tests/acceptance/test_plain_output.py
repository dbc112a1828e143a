"""What every verb writes to a file, to a terminal that is to have no colours, and to a narrow one."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.acceptance.commands import Ran
from tests.acceptance.forked import run_all
from tests.acceptance.many import many_hosts
from tests.lab.database import DatabaseServer
from tests.lab.fixtures_database import Database
from tests.lab.sshd import closed_port, end_processes
from tests.unit.test_help import EVERY_VERB

NARROW = 60
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")

# In the order of a day. FILE is a hosts.yaml with two hosts, of which one is not there.
VERBS = {
    "init": "init made.yaml --fleet made --database mongodb://127.0.0.1:9 --name x --host 127.0.0.9 --no-probe",
    "schema": "schema",
    "trust": "trust FILE --host gone --yes",
    "deploy": "deploy FILE --yes",
    "plan": "plan FILE --diff",
    "check": "check FILE -v",
    "status": "status FILE --deep",
    "ps": "ps FILE",
    "exec": "exec --file FILE -- echo hello",
    "events": "events FILE",
    "logs": "logs FILE",
    "notify": "notify FILE --once",
    "inventory": "inventory FILE --ansible",
    "collect": "collect FILE -o collected",
    "history": "history FILE",
    "restart": "restart FILE --now --yes",
    "drain": "drain * FILE --why oil",
    "resume": "resume * FILE",
    "stop": "stop FILE --now --yes --timeout 20",
    "start": "start FILE",
    "scale": "scale node1 2 FILE",
    "prune": "prune FILE --yes",
    "unlock": "unlock FILE --yes",
    "rollback": "rollback FILE --yes",
    "top": "top FILE",
    "queue submit": "queue submit WATER --job sleep --hosts-file FILE",
    "queue status": "queue status FILE",
    "queue list": "queue list FILE",
    "queue show": "queue show 65f0c1a2b3c4d5e6f7a8b9c0 --hosts-file FILE",
    "queue results": "queue results --hosts-file FILE",
    "queue hold": "queue hold --all --yes --hosts-file FILE",
    "queue release": "queue release --all --yes --hosts-file FILE",
    "queue cancel": "queue cancel --all --yes --hosts-file FILE",
    "queue requeue": "queue requeue --all --yes --hosts-file FILE",
    "completion": "completion bash",
    "destroy": "destroy FILE --yes --now",
}
ELSEWHERE = {"demo"}
"""With a test of its own, which takes a minute."""
ON_A_TERMINAL = ("plan", "check", "status", "ps", "events", "logs", "collect", "history", "stop", "start", "unlock")


@pytest.fixture(scope="module")
def ran(database_server: DatabaseServer, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Ran]:
    """What each verb wrote, by its name and whether to a narrow terminal without colours."""
    place = tmp_path_factory.mktemp("plain")
    fleet = many_hosts(Database(database_server, "plain_output"), place, ["node1"])
    gone: dict[str, Any] = {"connection": "ssh", "address": "127.0.0.1"}
    fleet.content["hosts"] = {"node1": {**fleet.content["hosts"]["node1"], "workers": _workers()}, "gone": gone}
    water = place / "water.xyz"
    water.write_text("1\n\nHe 0 0 0\n")
    names = {"FILE": str(fleet.file), "WATER": str(water)}

    def words(verb: str) -> list[str]:
        return [names.get(word, word) for word in VERBS[verb].split()]

    narrow = [(verb, True) for verb in ON_A_TERMINAL]
    after = [*VERBS].index("rollback")
    order = [(verb, False) for verb in VERBS]
    order[after:after] = narrow
    commands = [(words(verb), NARROW if on_terminal else None) for verb, on_terminal in order]
    try:
        with closed_port() as port:
            gone["ssh"] = {"port": port}
            fleet.file.write_text(yaml.safe_dump(fleet.content, sort_keys=False))
            found = run_all(commands, place, NO_COLOR="1", COLUMNS="")
    finally:
        end_processes(place)
    return dict(zip(order, found, strict=True))


def _workers() -> dict[str, object]:
    return {"cores": 1, "memory": 1, "disk": 0.1, "count": 1}


def test_no_verb_is_forgotten() -> None:
    assert {" ".join(words) for words, _ in EVERY_VERB} == {*VERBS, *ELSEWHERE}


@pytest.mark.parametrize("verb", VERBS)
def test_a_file_gets_neither_colours_nor_a_spinner(ran: dict[tuple[str, bool], Ran], verb: str) -> None:
    done = ran[verb, False]
    text = done.out + done.err
    print(done)
    assert "Traceback" not in text
    assert done.code in {0, 1, 2}
    assert text
    assert "\x1b" not in text
    assert "\r" not in text
    assert not re.search("[⠁-⣿]", text)


@pytest.mark.parametrize("verb", ON_A_TERMINAL)
def test_a_narrow_terminal_without_colours(ran: dict[tuple[str, bool], Ran], verb: str) -> None:
    done = ran[verb, True]
    print(done.out)
    assert "Traceback" not in done.out
    assert not _COLOUR.search(done.out)
    assert done.code == ran[verb, False].code
