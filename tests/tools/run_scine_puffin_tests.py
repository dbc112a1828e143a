"""Runs scine-puffin's own job tests twice, with its Configuration and with ours, and compares.

    python tests/tools/run_scine_puffin_tests.py SOURCE [-k EXPRESSION] [--path FOLDER]

SOURCE is a checkout of scine-puffin, or anything that git can clone. The job classes are those of the installed
scine-puffin; only the tests come from SOURCE. FOLDER has what scine-puffin requires and we do not: make it with
`uv pip install --target FOLDER pymatgen`. PYTHONPATH may name more for both runs, such as the wheel of xtb. Exits 1 if
a test passes with its Configuration and not with ours.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from fleet.embedded import EmbeddedDatabase  # noqa: E402  found through the line above

_PLUGIN = """\
import scine_puffin.config
from puffin.config import Configuration
from puffin.jobs import stand_ins

scine_puffin.config.Configuration = Configuration
stand_ins.provide()
"""


def prepare(source: str, directory: Path) -> None:
    """Lay the tests beside a copy of the installed job classes: they belong to the same package."""
    installed = find_spec("scine_puffin")
    assert installed is not None, "scine-puffin is not installed"
    assert installed.submodule_search_locations, "scine-puffin is no package"
    package = directory / "scine_puffin"
    shutil.copytree(installed.submodule_search_locations[0], package, ignore=shutil.ignore_patterns("__pycache__"))
    tests = Path(source) / "scine_puffin" / "tests"
    if not tests.is_dir():
        clone = directory / "source"
        subprocess.run(["git", "clone", "--quiet", "--depth", "1", source, str(clone)], check=True)
        tests = clone / "scine_puffin" / "tests"
    shutil.copytree(tests, package / "tests", dirs_exist_ok=True)
    (directory / "with_our_configuration.py").write_text(_PLUGIN)


def run(directory: Path, name: str, arguments: list[str], port: int, *path: str) -> dict[str, str]:
    """Run the tests; return the outcome of each."""
    report = directory / f"{name}.xml"
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=900"]
    words += ["--rootdir", str(directory), "-c", os.devnull, f"--junitxml={report}", *arguments]
    present = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(directory), str(ROOT), *path, *present]),
        "TEST_MONGO_DB_IP": "127.0.0.1",
        "TEST_MONGO_DB_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }
    work = directory / f"work-{name}"
    work.mkdir()
    with (directory / f"{name}.log").open("w") as log:
        subprocess.run(
            [*words, str(directory / "scine_puffin" / "tests" / "jobs")],
            cwd=work,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    return dict(outcomes(report))


def outcomes(report: Path) -> list[tuple[str, str]]:
    cases = ElementTree.parse(report).getroot().iter("testcase")
    return [(f"{case.get('classname', '').partition('jobs.')[2]}.{case.get('name')}", outcome(case)) for case in cases]


def outcome(case: ElementTree.Element) -> str:
    for word in ("failure", "error", "skipped"):
        if case.find(word) is not None:
            return {"failure": "failed", "error": "failed"}.get(word, word)
    return "passed"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("-k", dest="expression", default="", help="only the tests that match, as in pytest")
    parser.add_argument("--path", action="append", default=[], help="where their Configuration's run finds more")
    parser.add_argument("--keep", type=Path, help="leave everything, logs included, in this new folder")
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="scine-puffin-tests-"))
    chosen = ["-k", options.expression] if options.expression else []
    try:
        prepare(options.source, directory)
        with EmbeddedDatabase(directory / "database") as database:
            theirs = run(directory, "theirs", chosen, database.port, *options.path)
            ours = run(directory, "ours", ["-p", "with_our_configuration", *chosen], database.port)
        return compare(theirs, ours)
    finally:
        if options.keep:
            shutil.move(directory, options.keep)
        else:
            shutil.rmtree(directory, ignore_errors=True)


def compare(theirs: dict[str, str], ours: dict[str, str]) -> int:
    for title, results in (("their Configuration", theirs), ("our Configuration", ours)):
        count = Counter(results.values())
        print(f"{title:20}  {count['passed']:3} passed  {count['failed']:3} failed  {count['skipped']:3} skipped")
    worse = [name for name, result in theirs.items() if result == "passed" and ours.get(name) != "passed"]
    for name in worse:
        print(f"worse: {name}: {ours.get(name, 'not run')}")
    for name in sorted(name for name, result in ours.items() if result == "failed" and name not in worse):
        print(f"fails with both: {name}")
    return 1 if worse or not theirs else 0


if __name__ == "__main__":
    sys.exit(main())
