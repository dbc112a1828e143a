"""Gets the sources of a program from a git repository, at a tag, a branch or a commit."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from puffin.errors import ProgramError
from puffin.hints import nearest
from puffin.programs.workshop import Workshop

_COMMIT = re.compile(r"[0-9a-f]{7,40}")


def git_environment(ssh_keys: Iterable[str], present: Mapping[str, str]) -> dict[str, str]:
    """Variables that let git use these keys, and never ask for a password.

    Parameters
    ----------
    ssh_keys
        Paths of private keys; without any, ssh uses what its own configuration says.
    present
        The variables as they are: a ``GIT_SSH_COMMAND`` among them is added to.
    """
    environment = {"GIT_TERMINAL_PROMPT": "0"}
    words = ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"]
    keys = [str(Path(key).expanduser()) for key in ssh_keys]
    for key in keys:
        words += ["-i", key]
    if keys:
        environment["GIT_SSH_COMMAND"] = f"{present.get('GIT_SSH_COMMAND', 'ssh')} {shlex.join(words)}"
    return environment


def refuse_passwords(source: str, path: str) -> None:
    """Refuse a password in the address of a repository: it would show in the list of processes and in logs.

    Parameters
    ----------
    source
        The address.
    path
        The setting that holds it.

    Raises
    ------
    ProgramError
        There is one.
    """
    if "://" in source and urlsplit(source).password:
        raise ProgramError(f"{path}: keep passwords out of it; use resources.ssh_keys or a git credential helper")


def fetch(source: str, version: str, repository: Path, workshop: Workshop) -> str:
    """Bring a clone to a version.

    Parameters
    ----------
    source
        A URL, or a path of a repository.
    version
        A tag, branch or commit; empty: what the repository has checked out.
    repository
        The clone; made if it is not there.
    workshop
        Runs git.

    Returns
    -------
    str
        The commit.

    Raises
    ------
    ProgramError
        The repository cannot be reached, or has no such version.
    """
    if (repository / ".git").is_dir():
        git = ["git", "-C", str(repository)]
        workshop.run([*git, "remote", "set-url", "origin", source], f"set the source {source}")
        refs = "+refs/heads/*:refs/remotes/origin/*"
        workshop.run([*git, "fetch", "--prune", "--tags", "--force", "origin", refs], f"fetch {source}")
    else:
        _clone(source, repository, workshop)
    commit = _resolve(version, repository, workshop) or _fetch_commit(version, repository, workshop)
    if commit is None:
        raise ProgramError(f"{source} has no tag, branch or commit '{version}'{_hint(version, repository, workshop)}")
    _check_out(commit, repository, workshop)
    return commit


def remote_commit(source: str, version: str, workshop: Workshop) -> str | None:
    """The commit that a tag or branch has in a repository now; None if it has none or cannot be reached.

    Parameters
    ----------
    source
        A URL, or a path of a repository.
    version
        The tag or branch; empty: what the repository has checked out.
    workshop
        Runs git.
    """
    wanted = [f"refs/tags/{version}^{{}}", f"refs/tags/{version}", f"refs/heads/{version}"] if version else ["HEAD"]
    said = workshop.ask(["git", "ls-remote", "--", source, *wanted]) or ""
    found = {name: commit for commit, _, name in (line.partition("\t") for line in said.splitlines())}
    return next((found[name] for name in wanted if name in found), None)


def is_pinned(version: str, repository: Path, workshop: Workshop) -> bool:
    """Whether a version always means the same commit: a tag or a commit, not a branch.

    Parameters
    ----------
    version
        The version.
    repository
        A clone that has it.
    workshop
        Runs git.
    """
    if not version:
        return False
    tag = _rev_parse(f"refs/tags/{version}", repository, workshop)
    branch = _rev_parse(f"refs/remotes/origin/{version}", repository, workshop)
    return tag is not None or (branch is None and _COMMIT.fullmatch(version) is not None)


def _clone(source: str, repository: Path, workshop: Workshop) -> None:
    repository.parent.mkdir(parents=True, exist_ok=True)
    unfinished = repository.with_name(f".{repository.name}.cloning")
    for remnant in (unfinished, repository):
        shutil.rmtree(remnant, ignore_errors=True)
    workshop.run(["git", "clone", "--no-checkout", "--", source, str(unfinished)], f"clone {source}")
    unfinished.rename(repository)


def _resolve(version: str, repository: Path, workshop: Workshop) -> str | None:
    if not version:
        return _rev_parse("refs/remotes/origin/HEAD", repository, workshop)
    names = (f"refs/tags/{version}", f"refs/remotes/origin/{version}")
    candidates = [*names, version] if _COMMIT.fullmatch(version) else names
    return next((found for name in candidates if (found := _rev_parse(name, repository, workshop))), None)


def _fetch_commit(version: str, repository: Path, workshop: Workshop) -> str | None:
    """Ask for a commit that no tag or branch leads to; not every server gives it."""
    if not _COMMIT.fullmatch(version):
        return None
    workshop.ask(["git", "-C", str(repository), "fetch", "origin", version])
    return _rev_parse(version, repository, workshop)


def _rev_parse(name: str, repository: Path, workshop: Workshop) -> str | None:
    words = ["git", "-C", str(repository), "rev-parse", "--verify", "--quiet", "--end-of-options"]
    return workshop.ask([*words, f"{name}^{{commit}}"])


def _check_out(commit: str, repository: Path, workshop: Workshop) -> None:
    git = ["git", "-C", str(repository)]
    workshop.run([*git, "checkout", "--force", "--detach", commit], f"check out {commit}")
    workshop.run([*git, "submodule", "sync", "--recursive"], "prepare the submodules")
    workshop.run([*git, "submodule", "update", "--init", "--recursive", "--force"], "fetch the submodules")


def _hint(version: str, repository: Path, workshop: Workshop) -> str:
    words = ["git", "-C", str(repository), "for-each-ref", "--format=%(refname)", "refs/tags", "refs/remotes/origin"]
    names = [re.sub(r"^refs/(tags|remotes/origin)/", "", name) for name in (workshop.ask(words) or "").split()]
    return nearest(version, [name for name in names if name != "HEAD"])
