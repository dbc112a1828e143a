"""The configuration of a worker as code sees it: sections that behave like dictionaries."""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import yaml

from puffin import overlay
from puffin import settings as schema
from puffin.errors import ConfigurationError
from puffin.hints import nearest
from puffin.settings import Settings


class Section(MutableMapping[str, Any]):
    """One section, indexed and assigned to like a dictionary; every assignment is validated.

    Parameters
    ----------
    path
        Where it stands in the file, such as ``daemon`` or ``programs.orca``.
    values
        The frozen settings behind it.
    keys
        The keys it has.
    """

    def __init__(self, path: str, values: Any, keys: tuple[str, ...]) -> None:
        self._path = path
        self._values = values
        self._keys = keys

    @property
    def frozen(self) -> Any:
        """The settings as an immutable record."""
        return self._values

    def __getitem__(self, key: str) -> Any:
        self._require(key)
        value = getattr(self._values, key)
        return list(value) if isinstance(value, tuple) else value

    def __setitem__(self, key: str, value: Any) -> None:
        self._require(key)
        self._values = overlay.replace_value(self._values, self._path, key, value)

    def __delitem__(self, key: str) -> None:
        raise ConfigurationError(f"{self._path}.{key}: a setting cannot be removed, only changed")

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        secrets = {key for section, key in schema.SECRET_KEYS if section == self._path}
        return repr({key: "***" if key in secrets and self[key] else self[key] for key in self})

    def _require(self, key: str) -> None:
        if key not in self._keys:
            # A KeyError too, so that ``in`` and ``get`` work as for any mapping.
            raise UnknownKey(f"{self._path}.{key}: unknown key{nearest(str(key), self._keys)}")


class UnknownKey(ConfigurationError, KeyError):
    """A key that the section does not have."""

    __str__ = ConfigurationError.__str__


class Programs(MutableMapping[str, Any]):
    """The section ``programs``: a section for each program."""

    def __init__(self, programs: Mapping[str, schema.ProgramSettings]) -> None:
        self._sections = {
            name: Section(f"programs.{name}", values, schema.PROGRAMS[name].keys) for name, values in programs.items()
        }

    @property
    def frozen(self) -> Mapping[str, schema.ProgramSettings]:
        """The settings of all programs as immutable records."""
        return {name: section.frozen for name, section in self._sections.items()}

    def __getitem__(self, name: str) -> Section:
        if name not in self._sections:
            raise UnknownKey(f"programs.{name}: unknown program{nearest(str(name), self._sections)}")
        return self._sections[name]

    def __setitem__(self, name: str, values: Mapping[str, Any]) -> None:
        section = self[name]
        for key, value in values.items():
            section[key] = value

    def __delitem__(self, name: str) -> None:
        raise ConfigurationError(f"programs.{name}: a program cannot be removed; set its 'available' to false")

    def __iter__(self) -> Iterator[str]:
        return iter(self._sections)

    def __len__(self) -> int:
        return len(self._sections)


class Configuration:
    """The configuration of a worker.

    It starts with the defaults; :meth:`load` lays a file and the environment over them. Sections are reached as
    ``config["daemon"]`` or ``config.daemon()``, settings as ``config["daemon"]["uuid"]``.
    """

    def __init__(self) -> None:
        self._source = ""
        self._digest = ""
        self._take(Settings())

    def __getitem__(self, key: str) -> MutableMapping[str, Any]:
        if key not in self._sections:
            raise UnknownKey(f"{key}: unknown section{nearest(str(key), self._sections)}")
        return self._sections[key]

    def daemon(self) -> MutableMapping[str, Any]:
        """The section about the worker process."""
        return self["daemon"]

    def database(self) -> MutableMapping[str, Any]:
        """The section about the database server."""
        return self["database"]

    def resources(self) -> MutableMapping[str, Any]:
        """The section about what the jobs may use."""
        return self["resources"]

    def programs(self) -> MutableMapping[str, Any]:
        """The section about the programs, one section each."""
        return self["programs"]

    @property
    def settings(self) -> Settings:
        """All settings as one immutable record."""
        sections: dict[str, Any] = {name: section.frozen for name, section in self._sections.items()}
        return Settings(**sections)

    @property
    def source(self) -> str:
        """Path of the file that was loaded; empty if none."""
        return self._source

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the loaded file; empty if none was loaded."""
        return self._digest

    @classmethod
    def of(cls, settings: Settings) -> Configuration:
        """A configuration with these settings.

        Parameters
        ----------
        settings
            The settings.
        """
        configuration = cls()
        configuration._take(settings)
        return configuration

    def load(self, path: str | None = None) -> None:
        """Load the defaults, then a file, then the environment.

        A variable ``PUFFIN_<SECTION>_<KEY>`` such as ``PUFFIN_DAEMON_MODE=debug`` or
        ``PUFFIN_PROGRAMS_ORCA_ROOT=/opt/orca`` sets one key. A missing uuid and a missing path of the file with the
        process id are filled in.

        Parameters
        ----------
        path
            The YAML file. Default: None, no file.

        Raises
        ------
        ConfigurationError
            The file cannot be read, or with every key that is unknown or has a wrong value.
        """
        content = _read(path) if path else b""
        layers = [(path, _parse_yaml(path, content))] if path else []
        self._take(_complete(overlay.parse([*layers, ("environment", _from_environment(os.environ))])))
        self._source = path or ""
        self._digest = hashlib.sha256(content).hexdigest()[:12] if path else ""

    def dump(self, path: str) -> None:
        """Write the configuration as YAML, readable by its owner only.

        Parameters
        ----------
        path
            The file; replaced if it exists.

        Raises
        ------
        ConfigurationError
            The file cannot be written.
        """
        target = Path(path)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                stream.write(self.to_yaml())
            temporary.replace(target)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise ConfigurationError(f"cannot write the configuration to {path}: {error.strerror}") from error

    def to_yaml(self) -> str:
        """The configuration as YAML text."""
        return yaml.safe_dump(schema.to_mapping(self.settings), sort_keys=False, default_flow_style=False)

    def _take(self, settings: Settings) -> None:
        self._sections: dict[str, Section | Programs] = {
            name: Section(name, getattr(settings, name), tuple(option[0] for option in schema.options(kind)))
            for name, kind in schema.SECTIONS.items()
        }
        self._sections["programs"] = Programs(settings.programs)


def dict_generator(indict: Mapping[str, Any], pre: list[str] | None = None) -> Iterator[list[str]]:
    """All chains of keys of a nested mapping, from the top to each value.

    Parameters
    ----------
    indict
        The mapping to go through.
    pre
        The keys that lead to it.

    Yields
    ------
    list[str]
        The keys from the top to one value.
    """
    above = pre or []
    for key, value in indict.items():
        if isinstance(value, Mapping):
            yield from dict_generator(value, [*above, key])
        else:
            yield [*above, key]


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from error


def _parse_yaml(path: str, content: bytes) -> Mapping[str, Any]:
    try:
        mapping = yaml.safe_load(content)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise ConfigurationError(f"{path}: must be a mapping with sections such as 'daemon' and 'database'")
    return mapping


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """Read the variables that name a known setting; others with the prefix belong to somebody else."""
    mapping: dict[str, Any] = {}
    for chain in dict_generator(schema.to_mapping(Settings())):
        value = environment.get("_".join(["PUFFIN", *chain]).upper())
        if value is not None:
            inner = mapping
            for key in chain[:-1]:
                inner = inner.setdefault(key, {})
            inner[chain[-1]] = value
    return mapping


def _complete(settings: Settings) -> Settings:
    daemon = settings.daemon
    name = daemon.uuid
    if name in {"", "uuid1"}:
        name = f"puffin-{uuid.uuid1().hex}"
    elif name == "uuid4":
        name = f"puffin-{uuid.uuid4().hex}"
    pid = daemon.pid or str(Path(daemon.pid_dir) / f"{name}.pid")
    return schema.with_identity(settings, name, pid)
