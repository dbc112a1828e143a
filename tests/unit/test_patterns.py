"""Words that stand for others."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from hypothesis import assume, example, given
from hypothesis import strategies as st

from puffin.patterns import any_of, is_any_of


@given(st.text(alphabet="ab-]![*?^\\.$", max_size=8), st.text(alphabet="ab-]![^\\.$", max_size=5))
@example("[]", "")
@example("[!]", "[")
@example("[!]]", "[")
@example("[!]a]", "b")
@example("[b-a]", "a")
@example("[b-a]]", "]")
@example("[a-", "[a-")
def test_the_database_understands_patterns_as_a_shell_does(pattern: str, text: str) -> None:
    assume("-" not in pattern or "!" not in pattern)  # behind an empty range Python takes "!" for what it is not
    (test,) = any_of(("name",), [pattern])
    asked = test["name"]
    found = text in asked["$in"] if "$in" in asked else re.fullmatch(asked["$regex"], text) is not None
    assert found == fnmatchcase(text, pattern) == is_any_of(text, [pattern])
