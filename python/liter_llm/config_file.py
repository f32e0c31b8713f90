"""Reads `liter-llm.toml`: finds it, fills in `${ENV}`, and names file and line of what is wrong with it.

What the options mean and whether they are right is the engine's business; it gets the document as JSON.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from ._native import Engine, EngineError
from ._native import providers as native_providers
from .catalog import base_path
from .config import VEIL, ProviderConfig
from .errors import ConfigError, LiterLlmError, from_engine
from .toml_lines import Path, line_of, lines, nearest, parse

DEFAULT_NAME = "liter-llm.toml"
PATH_VARIABLE = "LITER_LLM_CONFIG"
#: Options that carry their unit in files.
DURATIONS = frozenset(
    {
        "timeout",
        "connect_timeout",
        "first_byte_timeout",
        "idle_timeout",
        "open_time",
        "after",
        "ttl",
        "window",
    }
)
#: Tables whose keys are not options: header names, vendor fields, names of needs.
_VERBATIM = frozenset({"headers", "extra", "supports"})
#: Options by which a deployment says itself with what it is to be let in.
_CREDENTIALS = (
    "api_key",
    "azure_ad_token",
    "client_secret",
    "federated_token_file",
    "managed_identity",
)
_VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>[^}:]*)(?::-(?P<default>[^}]*))?\})")
_TOML_LINE = re.compile(r" \(at line (\d+), column \d+\)")
#: Shorter values of the environment are no secrets, and stand in messages by chance.
_SHORTEST_SECRET = 6

E = TypeVar("E", bound=LiterLlmError)

#: When the file was written, its length, and which file it is; `None`: there is none.
Stamp = tuple[int, int, int] | None


class Loaded:
    """A configuration file as it was read. It holds the secrets; `repr` does not show them.

    Attributes:
        path: The file, absolute.
        found: Whether it was found, rather than named by the caller or by `LITER_LLM_CONFIG`.
        document: The configuration document, options under their names in code.
        stamp: Tells whether the file has changed since.
        deployments: The deployments. Options the engine refuses are not in them.
        single: Whether the document describes one deployment, `[deployment]`.
    """

    __slots__ = ("_places", "_variables", "deployments", "document", "found", "path", "single", "stamp")

    def __init__(
        self,
        path: str,
        *,
        found: bool,
        document: dict[str, Any],
        places: dict[Path, int],
        variables: dict[str, str],
        stamp: Stamp,
    ) -> None:
        self.path = path
        self.found = found
        self.document = document
        self.stamp: Stamp = stamp
        self._places = places
        self._variables = variables
        self.single = "deployment" in document
        self.deployments = self._configs()

    @property
    def document_bytes(self) -> bytes:
        """The document as the engine takes it. It goes nowhere else."""
        return msgspec.json.encode({"catalog_base": base_path(), **self.document})

    @property
    def providers(self) -> dict[str, Any]:
        """The provider rows of the file."""
        return self.document.get("providers", {})

    def placed(self, error: E) -> E:
        """The engine's error with file and line before its text, and without values of the environment."""
        line = self.line(error.param)
        text = self._unveiled(str(error))
        error.args = (f"{self.path}{f':{line}' if line else ''}: {text}",)
        error.message = self._unveiled(error.message)
        return error

    def line(self, param: str | None) -> int | None:
        """The line of an option, given as errors name it."""
        path = parse(param or "")
        # Of the one deployment, and of the router, the engine at times names the option alone.
        for around in ((), ("deployment",), ("router",)):
            found = nearest(self._places, (*around, *path))
            if len(found) == len(around) + len(path) and found:
                return self._places[found]
        place = line_of(self._places, path)
        return place or line_of(self._places, ("deployment",)) or line_of(self._places, ("deployments",))

    def _unveiled(self, text: str) -> str:
        for name, value in self._variables.items():
            if len(value) >= _SHORTEST_SECRET:
                text = text.replace(value, f"${{{name}}}")
        return text

    def changed(self, changes: Mapping[str, Any]) -> Loaded:
        """The same with options of all its deployments replaced."""
        document = dict(self.document)
        if self.single:
            document["deployment"] = {**document["deployment"], **changes}
        elif isinstance(document.get("deployments"), list):
            document["deployments"] = [{**one, **changes} for one in document["deployments"]]
        return Loaded(
            self.path,
            found=self.found,
            document=document,
            places=self._places,
            variables=self._variables,
            stamp=self.stamp,
        )

    def _configs(self) -> list[ProviderConfig]:
        listed: Any = [self.document["deployment"]] if self.single else self.document.get("deployments", [])
        if not isinstance(listed, list):
            return []
        configs: list[ProviderConfig] = []
        for one in listed:  # pyright: ignore[reportUnknownVariableType]
            if not isinstance(one, dict):
                continue
            known: dict[str, Any] = {name: one.get(name) for name in ProviderConfig.__slots__}  # pyright: ignore[reportUnknownMemberType]
            try:
                configs.append(ProviderConfig(known.pop("provider"), **known))
            except ConfigError as error:
                # The engine's word comes first: it knows the path, and shows no values.
                self._judged()
                raise self.placed(error) from None
        return configs

    def _judged(self) -> None:
        try:
            Engine(self.document_bytes).close()
        except EngineError as error:
            raise self.placed(from_engine(error)) from None

    def __repr__(self) -> str:
        return f"Loaded({self.path!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        import pickle

        given = (self.path, self.found, self.document, self._places, self._variables, self.stamp)
        return (_rebuild, (pickle.dumps(given).translate(VEIL),))


def _rebuild(given: bytes) -> Loaded:
    import pickle

    path, found, document, places, variables, stamp = pickle.loads(given.translate(VEIL))  # noqa: S301 - inside a pickle already
    return Loaded(path, found=found, document=document, places=places, variables=variables, stamp=stamp)


def load(path: str | os.PathLike[str] | None = None) -> Loaded:
    """Reads a configuration file.

    Args:
        path: The file; without one, `LITER_LLM_CONFIG` names it, else it is the first `liter-llm.toml` in the
            working folder and those above it.

    Raises:
        ConfigError: There is no such file, it is not TOML, a variable is not set, or the file was found and
        may not be trusted with a key; the message names file, line and remedy.
    """
    named = os.fspath(path) if path is not None else os.environ.get(PATH_VARIABLE)
    if named:
        return _read(os.path.abspath(named), found=False)  # noqa: PTH100
    place = find()
    if place is None:
        raise ConfigError(
            f"there is no {DEFAULT_NAME} in the working folder or above it; write one, name a file, or set "
            f"{PATH_VARIABLE}",
            param="path",
        )
    return _read(place, found=True)


def again(loaded: Loaded) -> Loaded:
    """Reads the same file once more."""
    return _read(loaded.path, found=loaded.found)


def find() -> str | None:
    """The first `liter-llm.toml` in the working folder and those above it."""
    folder = os.getcwd()  # noqa: PTH109
    while True:
        place = os.path.join(folder, DEFAULT_NAME)  # noqa: PTH118
        if os.path.isfile(place):  # noqa: PTH113
            return place
        above = os.path.dirname(folder)  # noqa: PTH120
        if above == folder:
            return None
        folder = above


def stamp_of(path: str) -> Stamp:
    """Tells one writing of a file from another."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _read(place: str, *, found: bool) -> Loaded:
    try:
        with open(place, "rb") as file:  # noqa: PTH123
            status = os.fstat(file.fileno())
            text = file.read().decode()
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror or error}", param="path") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{place}: is not UTF-8 text", param="path") from error
    if found:
        _owned(place, status)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        where = _TOML_LINE.search(str(error))
        line = f":{where[1]}" if where else ""
        said = _TOML_LINE.sub("", str(error))
        raise ConfigError(f"{place}{line}: is not TOML: {said}", param="path") from None
    reading = _Reading(place, lines(text))
    filled = {name: reading.value(value, (name,)) for name, value in document.items()}
    for table in ("deployment", "router", "cache"):
        if table in filled:
            filled[table] = reading.options(filled[table], (table,))
    if isinstance(filled.get("deployments"), list):
        listed: list[Any] = filled["deployments"]
        filled["deployments"] = [
            reading.options(one, ("deployments", position)) for position, one in enumerate(listed)
        ]
    _place_paths(place, filled)
    if found:
        _check_keys(filled, reading)
    return Loaded(
        place,
        found=found,
        document=filled,
        places=reading.places,
        variables=reading.variables,
        stamp=(status.st_mtime_ns, status.st_size, status.st_ino),
    )


def _place_paths(place: str, document: dict[str, Any]) -> None:
    """Has the paths in a document begin beside its file, wherever the program was started."""
    holders: list[tuple[Any, str]] = [(document, "catalog")]
    router = document.get("router")
    if isinstance(router, dict):
        given: Any = router.get("budget")  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        budgets: list[Any] = given if isinstance(given, list) else [given]  # pyright: ignore[reportUnknownVariableType]
        holders += [(budget, "path") for budget in budgets]
    for holder, option in holders:
        if not isinstance(holder, dict):
            continue
        path: Any = holder.get(option)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        # An empty one stays as it is: the engine refuses it.
        if isinstance(path, str) and path:
            holder[option] = os.path.join(os.path.dirname(place), os.path.expanduser(path))  # noqa: PTH111, PTH118, PTH120


class _Reading:
    """Brings one file's values into the form the engine takes."""

    def __init__(self, place: str, places: dict[Path, int]) -> None:
        self.place = place
        self.places = places
        self.variables: dict[str, str] = {}

    def refuse(self, path: Path, what: str) -> NoReturn:
        line = line_of(self.places, path)
        shown = _shown(path)
        raise ConfigError(f"{self.place}{f':{line}' if line else ''}: `{shown}`: {what}", param=shown)

    def value(self, value: Any, path: Path) -> Any:
        """`${NAME}` and `${NAME:-default}` become the environment's values; `$$` is a dollar sign."""
        if isinstance(value, str):
            return _VARIABLE.sub(lambda match: self._variable(match, path), value)
        if isinstance(value, dict):
            return {name: self.value(item, (*path, name)) for name, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        if isinstance(value, list):
            return [self.value(item, (*path, index)) for index, item in enumerate(value)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        if isinstance(value, float) and not math.isfinite(value):
            self.refuse(path, "must be a finite number")
        if not isinstance(value, (bool, int, float)):
            self.refuse(path, "dates and times are no values of an option; write text in quotes")
        return value

    def _variable(self, match: re.Match[str], path: Path) -> str:
        if match.group() == "$$":
            return "$"
        name, default = match.group("name"), match.group("default")
        value = os.environ.get(name)
        if value:
            self.variables[name] = value
        elif default is None:
            self.refuse(
                path, f"the environment variable `{name}` is not set; set it, or write `${{{name}:-...}}`"
            )
        return value or default or ""

    def options(self, table: Any, path: Path) -> Any:
        """The options under their names in code: durations carry their unit in files."""
        if not isinstance(table, dict):
            return table
        options: dict[str, Any] = {}
        for key, value in table.items():  # pyright: ignore[reportUnknownVariableType]
            name = str(key)  # pyright: ignore[reportUnknownArgumentType]
            option = name.removesuffix("_seconds")
            option = option if option in DURATIONS else name
            if option in options:
                self.refuse((*path, name), f"stands there twice, as `{option}` and as `{option}_seconds`")
            options[option] = value if name in _VERBATIM else self.options(value, (*path, name))
        provider = options.get("provider")
        if path[0] != "router" and "model" not in options and isinstance(provider, str) and "/" in provider:
            options["provider"], _, options["model"] = provider.partition("/")
        return options


def _shown(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", part)
            text += ("." if text else "") + (part if plain else msgspec.json.encode(part).decode())
    return text


# ------------------------------------------------------------------------------------------------- trust


def _owned(place: str, status: os.stat_result) -> None:
    """Refuses a file that was found and that another user may have put there.

    Raises:
        ConfigError: It belongs to another user, or everybody may write it.
    """
    owner = getattr(os, "geteuid", None)
    if owner is None:
        return
    what = ""
    if status.st_uid not in {owner(), 0}:
        what = "it belongs to another user"
    elif status.st_mode & 0o002:
        what = "every user of this machine may write it"
    if what:
        raise ConfigError(
            f"{place}: was found, not named, and {what}; to use it all the same, name it: "
            f"from_config({place!r}) or {PATH_VARIABLE}",
            param="path",
        )


def _check_keys(document: dict[str, Any], reading: _Reading) -> None:
    """Refuses a file that was found and would send the environment's key to an address of its own.

    Raises:
        ConfigError: A deployment has a `base_url` and leaves its key to the environment.
    """
    places: list[tuple[Path, Any]] = [(("deployment",), document.get("deployment"))]
    listed = document.get("deployments")
    if isinstance(listed, list):
        places += [(("deployments", position), one) for position, one in enumerate(listed)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    own = document.get("providers")
    rows: dict[str, Any] = {
        **msgspec.json.decode(native_providers()),
        **(own if isinstance(own, dict) else {}),
    }
    for path, deployment in places:
        if not isinstance(deployment, dict):
            continue
        options: dict[str, Any] = deployment  # pyright: ignore[reportUnknownVariableType]
        if any(options.get(name) for name in _CREDENTIALS):
            continue
        name = str(options.get("provider", ""))
        row = rows.get(name)
        if not isinstance(row, dict):
            continue
        written = isinstance(own, dict) and name in own
        if not options.get("base_url") and not (written and row.get("base_url")):  # pyright: ignore[reportUnknownMemberType]
            continue
        # A row of the file's own names its variables itself.
        variables: list[str] = [] if written else list(row.get("api_key_env") or [])  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        variable = next((each for each in variables if os.environ.get(each)), None)
        if variable is None and not row.get("entra"):  # pyright: ignore[reportUnknownMemberType]
            continue
        wanted = variable or next(iter(variables), "AZURE_OPENAI_API_KEY")
        reading.refuse(
            (*path, "base_url"),
            "the file was found, not named, so the environment's key does not go to an address it gives: "
            f'write `api_key = "${{{wanted}}}"` beside it, or name the file in {PATH_VARIABLE} or in '
            "from_config(path)",
        )
