from __future__ import annotations

import dataclasses
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.deployment.difftext import MASK, diffs, mask_lines, unified_diff, wanted_texts
from fleet.deployment.manifest import FileState
from fleet.deployment.planner import plan_host
from fleet.deployment.sides import ObservedHost
from fleet.hosts.render import RenderedFile
from fleet.hosts.yamlmap import write
from tests.unit.test_plan import HOSTS, deployed, desired, render, states

WITH_SECRET = HOSTS.replace(
    "    workers:", "    environment: {API_TOKEN: geheim-neu, DB_PWD: geheim-neu, OMP: few}\n    workers:"
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("export API_TOKEN='a\nb\nc' ; x\nexport D=1", f"export API_TOKEN= {MASK}\n{MASK}\n{MASK}\nexport D=1"),
        ("export DB_PWD=a\\\nb\nexport D=1", f"export DB_PWD= {MASK}\n{MASK}\nexport D=1"),
        (
            "export PGPASS=x\nLICENSE_KEY=x\nBASIC_AUTH=x",
            f"export PGPASS= {MASK}\nLICENSE_KEY= {MASK}\nBASIC_AUTH= {MASK}",
        ),
        (
            "export PATH=/bin\nexport KEYS_PER_NODE=2\nOMP_NUM_THREADS=4",
            "export PATH=/bin\nexport KEYS_PER_NODE=2\nOMP_NUM_THREADS=4",
        ),
        ("password: |\n  a\n\n  b\nname: x", f"password: {MASK}\n{MASK}\n\n{MASK}\nname: x"),
        ("  token: 'a\n   b'\n  name: x", f"  token: {MASK}\n{MASK}\n  name: x"),
        ("secrets:\n- a\n- b: c\nname: x", f"secrets: {MASK}\n{MASK}\n{MASK}\nname: x"),
        (
            "credentials:\n  user: a\n  deep:\n    b: c\nname: x",
            f"credentials: {MASK}\n{MASK}\n{MASK}\n{MASK}\nname: x",
        ),
        ("password: don't\nname: x", f"password: {MASK}\nname: x"),
        ("# environment: 0123456789ab", f"# environment: {MASK}"),
        ("uri: mongodb://u:p@db/x", f"uri: mongodb://u:{MASK}@db/x"),
        ("a: \x1b[31mred\tb", "a: \N{REPLACEMENT CHARACTER}[31mred\tb"),
    ],
)
def test_secrets_are_hidden_to_their_last_line(text: str, shown: str) -> None:
    assert mask_lines(text.split("\n")) == shown.split("\n")


SECRET = "s3cr3t"


@given(
    st.text(alphabet=st.sampled_from("ab'\"\\ \n#=:-{}$é"), max_size=20), st.text(alphabet="ab'\"\\ \n", max_size=20)
)
def test_no_line_of_a_quoted_secret_is_ever_shown(value: str, other: str) -> None:
    secret = "\n".join(f"{SECRET}{line}{SECRET}" for line in value.split("\n"))
    text = f"export API_TOKEN={shlex.quote(secret)}\nexport OTHER={shlex.quote(other)}\nexport LAST=seen\n"
    shown = mask_lines(text.split("\n"))
    assert len(shown) == len(text.split("\n"))
    assert SECRET not in "\n".join(shown)
    assert "export LAST=seen" in shown
    yaml = write({"a": {"db_password": secret, "b": 1}, "c": 2})
    assert SECRET not in "\n".join(mask_lines(yaml.split("\n")))
    assert "c: 2" in mask_lines(yaml.split("\n"))


def test_a_secret_that_changes_is_seen_to_change() -> None:
    file = RenderedFile("etc/workers/a.env", 0o600, b"# x\nexport API_TOKEN=neu\n")
    assert unified_diff(file, b"# x\nexport API_TOKEN=alt\n").splitlines() == [
        "--- a/etc/workers/a.env",
        "+++ b/etc/workers/a.env",
        "@@ -1,2 +1,2 @@",
        " # x",
        f"-export API_TOKEN= {MASK}",
        "+export API_TOKEN= (hidden, changed)",
    ]


@pytest.mark.parametrize(
    ("before", "after", "added"),
    [
        ("uri: mongodb://u:a@db/x", "uri: mongodb://u:b@db/x", ["uri: mongodb://u:(hidden, changed)@db/x"]),
        ("a: \x01", "a: \x02", ["a: \N{REPLACEMENT CHARACTER} (hidden, changed)"]),
        ("TOKEN=a", "TOKEN=a\nTOKEN=b", [f"TOKEN= {MASK}"]),  # no line of this block looks like it
        ("MODE=1\nTOKEN=a", "TOKEN=b\nMODE=2", ["TOKEN= (hidden, changed)", "MODE=2"]),
        ("TOKEN=a", "API_TOKEN=b", [f"API_TOKEN= {MASK}"]),
    ],
)
def test_a_new_line_that_looks_like_an_old_one_says_that_it_is_another(
    before: str, after: str, added: list[str]
) -> None:
    shown = unified_diff(RenderedFile("f", 0o644, f"{after}\n".encode()), f"{before}\n".encode())
    assert [line[1:] for line in shown.splitlines()[3:] if line.startswith("+")] == added


def test_the_diff_of_an_ending_alone() -> None:
    assert unified_diff(RenderedFile("f", 0o644, b"a\n"), b"a").splitlines()[2:] == [
        "\\ Only the end of the last line differs"
    ]


def test_all_that_is_written_is_shown_and_what_is_secret_is_not_asked_for() -> None:
    files = render(WITH_SECRET, password="geheim-neu")
    there = dict(states(render(password="geheim-alt")))
    there["etc/supervisor"] = FileState(there["etc/supervisor"].sha256, 0o600)
    plan = plan_host(desired(files), dataclasses.replace(deployed(), files=there))
    asked = wanted_texts(plan)
    assert "etc/database.password" not in asked
    assert set(asked) == {f"etc/workers/node1-{n}.{kind}" for n in (1, 2) for kind in ("env", "yaml")}
    contents = {file.path: file.content.decode() for file in render(password="geheim-alt")}
    shown = diffs(plan, {path: contents[path] for path in asked}, there)
    assert set(shown) == {write.file.path for write in plan.files_to_write}
    assert "geheim" not in str(shown)
    assert "+export OMP=few" in shown["etc/workers/node1-1.env"]
    assert shown["etc/supervisor"] == "old mode 0600\nnew mode 0644\n"
    assert shown["etc/database.password"].splitlines()[0] == "--- a/etc/database.password"


def test_new_files_need_nothing_from_the_host() -> None:
    plan = plan_host(desired(), ObservedHost())
    assert wanted_texts(plan) == ()
    shown = diffs(plan, {}, {})
    assert all(text.startswith("--- /dev/null\n+++ b/") for text in shown.values())
    assert "geheim" not in str(shown)
    assert len(shown) == len(render())
