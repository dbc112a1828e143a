"""The kinds of values in hosts.yaml: what each may be, and what is said where it is not. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhd])+\Z")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
URI = re.compile(r"mongodb(?:\+srv)?://(?:([^@/]*)@)?[^@/?\s]+(?:/([^?\s]*))?(?:\?(\S*))?\Z")
_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]]*)(?::(.*))?\Z")
_SECRET_OPTIONS = re.compile(r"(password|token|secret)[a-z]*[=:]", re.IGNORECASE)
PASSWORD_ADVICE = "put the password in a file and name it in database.password_file"  # noqa: S105 - a sentence


def refuse(message: str) -> PydanticCustomError:
    """An error for pydantic that says this and nothing else; to be raised by a validator."""
    return PydanticCustomError("refused", "{message}", {"message": message})


def _name(value: str) -> str:
    if not NAME.match(value):
        raise refuse("must start with a letter or digit and hold only letters, digits, '.', '_' and '-'")
    return value


def path_problem(value: str) -> str | None:
    """Say why a directory cannot hold a fleet, or return None.

    supervisord reads its settings without any way to quote: what stands behind ' ;' or ' #' is a comment,
    and the directory of its file is part of a glob pattern. Python refuses an environment below a path
    with a colon.
    """
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        return "must not hold control characters"
    if re.search(r"\s[;#]", value) or value != value.strip():
        return "must not begin or end with a space, nor hold one before ';' or '#': supervisord cannot read that"
    if re.search(r"[\[\]*?:]", value):
        return "must not hold any of [ ] * ? : since supervisord or Python cannot use such a directory"
    return None


def _directory(value: str) -> str:
    if not value.startswith(("/", "~")):
        raise refuse("must start with '/' or '~'")
    if problem := path_problem(value):
        raise refuse(problem)
    return value


def _word(value: str) -> str:
    if not value or value.startswith("-") or re.search(r"\s", value):
        raise refuse("must be one word that does not start with '-'")
    return value


def split_place(place: str) -> tuple[str | None, str, str | None]:
    """User, address and port of ``[user@]address[:port]``; an address with colons has brackets where a port follows.

    Parameters
    ----------
    place
        The words.
    """
    user, at, rest = place.rpartition("@")
    match = re.fullmatch(r"\[(.+)\](?::([^:]*))?|([^:]*)(?::([^:]*))?", rest)
    address, port = (match[1] or match[3], match[2] or match[4]) if match else (rest, None)
    return (user if at else None), address, port or None


def _address(value: str) -> str:
    user, address, port = split_place(_word(value))
    if address == value:
        return value
    keys = [f"address: {address}", f"user: {user}" if user else "", f"ssh: {{port: {port}}}" if port else ""]
    raise refuse(f"must be a name or address alone: write {', '.join(key for key in keys if key)}")


def _filled(value: str) -> str:
    if not value.strip() or "\n" in value or "\0" in value:
        raise refuse("must not be empty or hold line breaks")
    return value


def seconds(value: object) -> object:
    """Read a time such as 1h30m, or a number of seconds."""
    found: object = value
    if isinstance(value, str) and _DURATION.match(value):
        parts = re.findall(r"([0-9.]+)([smhd])", value)
        found = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if isinstance(found, int | float) and not isinstance(found, bool) and found >= 0 and math.isfinite(found):
        return float(found)
    raise refuse("must be a time such as 10s, 5m, 1h30m or 24h")


def _count(value: object) -> object:
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
        return value
    raise refuse("must be auto or a whole number of at least 1")


def one_or_many(value: object) -> object:
    """A list of one where a mapping stands alone."""
    return [value] if isinstance(value, Mapping) else value


def empty_is_mapping(value: object) -> object:
    """An empty mapping where a key has no value."""
    return {} if value is None else value


class Section(BaseModel):
    """A mapping of hosts.yaml: frozen, strict about types, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Share(Section):
    """A number of hosts, or a percentage of them."""

    value: float
    percent: bool = False

    def of(self, total: int, round_up: bool = False) -> int:
        """Number of hosts meant, out of `total`."""
        if not self.percent:
            return int(self.value)
        number = total * self.value / 100
        return math.ceil(number) if round_up else int(number)

    def __str__(self) -> str:
        return f"{self.value:g}%" if self.percent else f"{self.value:g}"


def share(value: object) -> object:
    """Read a number of hosts or a percentage."""
    if isinstance(value, Share):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return Share(value=float(value))
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)%", value)):
        number = float(match.group(1))
        if number <= 100:
            return Share(value=number, percent=True)
    raise refuse("must be a whole number or a percentage such as 25%")


def more_than_none(value: Share) -> Share:
    """Refuse a share that is nothing."""
    if value.value <= 0:
        raise refuse("must be more than 0")
    return value


Name = Annotated[str, AfterValidator(_name)]
Word = Annotated[str, AfterValidator(_word)]
Address = Annotated[str, AfterValidator(_address)]
Filled = Annotated[str, AfterValidator(_filled)]
Directory = Annotated[str, AfterValidator(_directory)]
Duration = Annotated[float, BeforeValidator(seconds, json_schema_input_type=str | float)]
AnyShare = Annotated[Share, BeforeValidator(share, json_schema_input_type=str | int)]
Gigabytes = Annotated[float, Field(gt=0)]


class HookTarget(Section):
    """Who is told of an event: a command, a URL, or a file with one. Exactly one of them is not empty."""

    command: str = ""
    # May hold a secret: never in what is printed of this.
    url: str = Field(default="", repr=False)
    url_file: str = ""


_URL = re.compile(r"https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[!-~]*)?\Z")


def is_url(value: str) -> bool:
    """Whether something can be sent to this: http:// or https://, a host, no user, nothing to be escaped."""
    return _URL.match(value) is not None


def _target(value: object) -> HookTarget:
    if isinstance(value, HookTarget):
        return value
    if isinstance(value, Mapping) and list(value) == ["url_file"]:
        value = value["url_file"]
        if isinstance(value, str) and value.strip() and not re.search(r"[\n\0]", value):
            return HookTarget(url_file=value)
        raise refuse("url_file must be the path of a file whose first line is a URL")
    if not isinstance(value, str) or not value.strip() or re.search(r"[\n\0]", value):
        raise refuse("must be a command, a URL, 'url_file: PATH', or a list of those")
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        if not is_url(value):
            raise refuse("must be a URL such as https://host/path, without a user or spaces (not repeated here)")
        return HookTarget(url=value)
    return HookTarget(command=value)


def targets(value: object) -> object:
    """Read one command, URL or ``url_file: PATH``, or a list of those."""
    if value is None:
        return ()
    return tuple(_target(each) for each in (value if isinstance(value, list | tuple) else [value]))


def check_uri(value: str) -> str:
    """Refuse what is no connection string; never with words of it, since they may be a password's."""
    scheme, _, rest = value.partition("://")
    # Who forgets to escape a password's '@', '/' or '?' shall be told of the password, not of what it breaks.
    user, at, _ = rest.rpartition("@")
    if (at and ":" in user) or _SECRET_OPTIONS.search(rest.partition("?")[2]):
        raise refuse(f"must not hold a password: {PASSWORD_ADVICE}")
    if any(character in user for character in "@/?"):
        raise refuse("must not hold a user's name with '@', '/' or '?': give it as database.username")
    if URI.match(value) is None:
        raise refuse("must look like mongodb://host:port or mongodb+srv://host")
    servers = re.split(r"[/?]", rest[len(user + at) :], maxsplit=1)[0].split(",")
    problems = [problem for server in servers if (problem := _server_problem(server, scheme.endswith("+srv")))]
    if problems:
        raise refuse(problems[0])
    if scheme.endswith("+srv") and len(servers) > 1:
        raise refuse("must name one host after mongodb+srv://, which stands for several servers")
    return value


def _server_problem(server: str, srv: bool) -> str:
    match = _SERVER.match(server)
    if match is None or not match[1].strip("[]"):
        return "must name a host, such as mongodb://db.example:27017 or mongodb://[::1]:27017; several with commas"
    port = match[2]
    if port is None:
        return ""
    if srv:
        return "must not name a port after mongodb+srv://, which looks it up itself"
    return "" if port.isascii() and port.isdigit() and 1 <= int(port) <= 65535 else "must have a port from 1 to 65535"


def database_name(value: str) -> str:
    """Refuse what MongoDB takes for no name of a database."""
    if not re.fullmatch(r"[^\s/\\.\"$*<>:|?,\0]{1,63}", value):
        raise refuse('must be a database name: no spaces, commas or any of / \\ . " $ * < > : | ?')
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise refuse("is not a name for an environment variable")
    if value.startswith("PUFFIN_"):
        raise refuse("PUFFIN_ variables would change settings unseen: use the 'puffin' section")
    return value


def _one_line(value: str) -> str:
    if re.search(r"[\0\r\n]", value):
        raise refuse("must be one line")
    return value


Environment = Mapping[Annotated[str, AfterValidator(_variable)], Annotated[str, AfterValidator(_one_line)]]

_SPAN = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z")


def _processors(value: object) -> object:
    """Numbers of processors, written as the kernel does (``0-15,32``), as one number or as a list of them."""
    items = value if isinstance(value, list) else str(value).split(",")
    if not isinstance(value, bool | float):
        spans = [_SPAN.match(str(item).strip()) for item in items if not isinstance(item, bool)]
        pairs = [(int(span[1]), int(span[2] or span[1])) for span in spans if span]
        if len(pairs) == len(items) > 0 and all(first <= last for first, last in pairs):
            return tuple(sorted({number for first, last in pairs for number in range(first, last + 1)}))
    raise refuse("must be numbers of processors, such as 0-15,32-47")


def _devices(value: object) -> object:
    """Ids of GPUs; numbers become text."""
    if value == "auto":
        return value
    items = value if isinstance(value, list) else [None]
    names = tuple(str(item) if isinstance(item, int | str) and not isinstance(item, bool) else "" for item in items)
    if not all(re.fullmatch(r"[A-Za-z0-9/-]+", name) for name in names):
        raise refuse("must be auto, or a list of ids such as [0, 1]: numbers as nvidia-smi shows them, or UUIDs")
    if len(set(names)) < len(names):
        raise refuse("must not name a device twice")
    return names


Count = Annotated[int | Literal["auto"], BeforeValidator(_count, json_schema_input_type=int | Literal["auto"])]
Processors = Annotated[
    tuple[int, ...], BeforeValidator(_processors, json_schema_input_type=str | int | list[int]), Field(strict=False)
]
Devices = Annotated[
    Literal["auto"] | tuple[str, ...],
    BeforeValidator(_devices, json_schema_input_type=Literal["auto"] | list[int | str]),
]
Targets = Annotated[
    tuple[HookTarget, ...],
    BeforeValidator(targets, json_schema_input_type=str | dict[Literal["url_file"], str] | list[str | dict[str, str]]),
    Field(strict=False),
]
