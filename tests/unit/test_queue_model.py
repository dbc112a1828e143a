"""Words on a command line become a model and settings."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.errors import UsageError
from fleet.queue.model import family_of, make_model, parse_settings, read_model
from puffin.documents import Model


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("n=5", 5),
        ("n=-5", -5),
        ("n=5.0", 5.0),
        ("n=1e-5", 1e-5),
        ("n=true", True),
        ("n=False", False),
        ("n=tight", "tight"),
        ("n=a=b", "a=b"),
        ("n=", ""),
        ('n="5"', "5"),
        ("n=[1, 2]", [1, 2]),
        ('n={"a": [1.5]}', {"a": [1.5]}),
    ],
)
def test_a_setting_is_what_it_looks_like(word: str, value: Any) -> None:
    found = parse_settings([word])["n"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["n"], "--setting n: must look like name=value"),
        (["=5"], "must look like name=value"),
        (["n=1", "n=2"], "--setting n: given twice"),
        (["n=nan"], "must be a finite number"),
        (["n=99999999999"], "is too large for a whole number: write 99999999999.0"),
        (["n=[1"], "is no valid JSON: [1"),
        (["n=[1, 2.5]"], "must be of one kind"),
        (["n=[true]"], "no list of true and false"),
        (['n={"a": null}'], "null is no value"),
        (["n=[[99999999999]]"], "is too large"),
    ],
)
def test_a_setting_that_cannot_be(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(words)
    assert said in str(caught.value)


def test_all_problems_of_settings_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        parse_settings(["a", "b=inf"])
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("method", "family"),
    [
        ("PM6", "PM6"),
        ("dftb3", "dftb3"),
        ("GFN2", "GFN2"),
        ("HF", "HF"),
        ("HF-3c", "HF"),
        ("DLPNO-CCSD(T)", "CC"),
        ("PBE-D3BJ", "DFT"),
        ("B3LYP", "DFT"),
    ],
)
def test_the_family_of_a_method(method: str, family: str) -> None:
    assert family_of(method) == family


def test_the_command_line_wins_over_the_file() -> None:
    content = read_model("method: PBE\nbasis_set: def2-SVP\ntemperature: 300\nsolvent: water\n")
    model = make_model(content, {"basis_set": "def2-TZVP", "program": None, "method_family": None})
    assert model == Model(method_family="DFT", method="PBE", basis_set="def2-TZVP", temperature="300", solvent="water")


def test_a_family_alone_is_a_method() -> None:
    assert make_model(None, {"method_family": "PM6"}).method == "PM6"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "which method?"),
        ("- PM6", "must hold fields such as 'method: PM6'"),
        ("metod: PM6", "unknown field 'metod', did you mean 'method'?"),
        ("method: [a]", "method must be text or a number"),
        ("method: true", "method must be text or a number"),
        ("method: 'a", "no valid YAML"),
    ],
)
def test_a_file_that_is_no_model(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_model(read_model(text), {})
    assert said in str(caught.value)
