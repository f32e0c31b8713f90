"""The catalogue of models: what each can do, and what its answers cost."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, final

import msgspec

from ._native import Catalog as NativeCatalog
from ._native import EngineError
from .errors import ConfigError, from_engine
from .types import Cost, Usage
from .value import Value

OWN_VARIABLE = "LITER_LLM_CATALOG"
FOLDER_VARIABLE = "LITER_LLM_DATA_DIR"
FILE_NAME = "models.json"
SHIPPED = os.path.join(os.path.dirname(__file__), FILE_NAME)  # noqa: PTH118, PTH120 - pathlib would slow the import

#: The updated file that was found whole, as path, size and time of change.
_whole: tuple[str, int, int] | None = None


def data_folder() -> str:
    """The user's folder for an updated catalogue: `LITER_LLM_DATA_DIR`, or the system's place for such."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return named
    if sys.platform == "win32":
        root = os.environ.get("LOCALAPPDATA") or "~\\AppData\\Local"
    elif sys.platform == "darwin":
        root = "~/Library/Application Support"
    else:
        root = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return os.path.join(os.path.expanduser(root), "liter-llm")  # noqa: PTH111, PTH118


def is_whole(path: str) -> bool:
    """Whether the file has the checksum that was written beside it."""
    from hashlib import sha256

    try:
        with open(path, "rb") as file, open(f"{path}.sha256", encoding="ascii") as sums:  # noqa: PTH123
            return sha256(file.read()).hexdigest() == sums.read().split()[0]
    except (OSError, IndexError, UnicodeDecodeError):
        return False


def base_path() -> str:
    """The file that counts: the updated one if there is one and it is whole, else the package's."""
    global _whole  # noqa: PLW0603 - a file is checked once
    path = os.path.join(data_folder(), FILE_NAME)  # noqa: PTH118
    try:
        found = os.stat(path)  # noqa: PTH116
    except OSError:
        return SHIPPED
    mark = (path, found.st_size, found.st_mtime_ns)
    if mark == _whole:
        return path
    if not is_whole(path):
        import warnings

        warnings.warn(
            f"{path} is not as `liter-llm models update` wrote it; the catalogue in the package is used",
            RuntimeWarning,
            stacklevel=2,
        )
        return SHIPPED
    _whole = mark
    return path


class ModelLimits(Value, frozen=True):
    """Numbers of tokens; `None` where no source says."""

    context: int | None = None
    """The context window."""
    input: int | None = None
    """The most input."""
    output: int | None = None
    """The most output."""
    dimensions: int | None = None
    """The length of an embedding, in numbers."""


class ModelInfo(Value, frozen=True):
    """One row of the catalogue."""

    key: str
    """`provider/model`, in lower case."""
    kind: str | None = None
    """`chat`, `responses`, `completion` or `embedding`."""
    limits: ModelLimits = ModelLimits()
    """Numbers of tokens."""
    input: list[str] = []
    """What goes in: `text`, `image`, `document`, `audio`, `video`; empty when no source says."""
    output: list[str] = []
    """What comes out; empty when no source says, which usually means text."""
    features: dict[str, bool] = {}
    """What it can do and cannot do; absent where no source says."""
    prices: list[dict[str, Any]] = []
    """Prices, oldest first; of those in force the last one counts. Empty: unknown."""
    geo_factors: dict[str, Decimal] = {}
    """What token prices are multiplied with when the provider worked in this place."""
    retires: str | None = None
    """The day the provider takes it away."""
    sources: dict[str, str] = {}
    """Where each group of facts comes from."""

    @property
    def provider(self) -> str:
        """The provider's name."""
        return self.key.partition("/")[0]

    @property
    def model(self) -> str:
        """The model's name at the provider, in lower case."""
        return self.key.partition("/")[2]

    def supports(self, feature: str) -> bool | None:
        """Whether it has a feature (`tools`, `image_input`, ...); `None` when no source says."""
        known = self.features.get(feature)
        name, _, direction = feature.partition("_")
        if known is None and direction in ("input", "output") and name in getattr(self, direction):
            return True
        return known

    def price(self, unit: str = "input") -> Decimal | None:
        """Today's price of a unit for an ordinary call, in dollars per million tokens; `None`: unknown."""
        today = datetime.now(UTC).date().isoformat()
        active = [entry for entry in self.prices if entry.get("from", "") <= today and "hours" not in entry]
        text = (active or self.prices)[-1 if active else 0].get(unit) if self.prices else None
        return None if text is None else Decimal(text)


@final
class Catalog:
    """Models, their limits, features and prices.

    Args:
        own: A file with rows of your own, which win; without one, `LITER_LLM_CATALOG` names it.
        base: The catalogue's file; without one, the updated one or the one in the package.

    Raises:
        ConfigError: A file is broken; the message names file and line or key.
    """

    __slots__ = ("_native", "path")

    path: str
    """The catalogue's file."""

    def __init__(
        self, own: str | os.PathLike[str] | None = None, *, base: str | os.PathLike[str] | None = None
    ) -> None:
        self.path = os.fspath(base) if base is not None else base_path()
        named = os.fspath(own) if own is not None else os.environ.get(OWN_VARIABLE) or None
        try:
            self._native = NativeCatalog(self.path, named)
        except EngineError as error:
            raise from_engine(error) from None
        problem = self._native.problem()
        if problem is not None:
            raise ConfigError(f"{self.path}: {problem}", param="catalog")

    def __repr__(self) -> str:
        return f"Catalog(base={self.path!r})"

    def get(self, model: str) -> ModelInfo | None:
        """What is known of `provider/model`; `None` for an unknown one.

        A name with a date that has no row of its own is taken for the name without it.
        """
        provider, _, name = model.partition("/")
        found = self._native.get(provider, name)
        return None if found is None else msgspec.json.decode(found, type=ModelInfo)

    def __iter__(self) -> Iterator[ModelInfo]:
        """Every model, sorted by key."""
        try:
            rows = self._native.all()
        except EngineError as error:
            raise from_engine(error) from None
        return iter(msgspec.json.decode(rows, type=list[ModelInfo]))

    def cost(
        self,
        model: str,
        usage: Usage,
        *,
        at: datetime | None = None,
        mode: Literal["batch", "flex", "priority", "fast"] | str | None = None,  # noqa: PYI051 - names the usual ones
        service_tier: str | None = None,
    ) -> Cost | None:
        """What a usage costs, exactly; `None` when the model or the price of anything used is not known.

        Args:
            model: `provider/model`.
            usage: What was consumed.
            at: When; without it, now. A time without a zone is UTC.
            mode: The way of processing, when it is not the ordinary one.
            service_tier: The tier the answer states; `default`, `standard` and the like are the ordinary one.
        """
        provider, _, name = model.partition("/")
        question: dict[str, Any] = {"provider": provider, "model": name, "usage": usage}
        if at is not None:
            question["at"] = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
        if mode is not None:
            question["mode"] = mode
        if service_tier is not None:
            question["service_tier"] = service_tier
        found = self._native.cost(msgspec.json.encode(question))
        return None if found is None else msgspec.json.decode(found, type=Cost)


def update(source: str | os.PathLike[str]) -> tuple[str, int]:
    """Takes a newer catalogue from a file, or from a wheel of this package, into the user's data folder.

    The file is checked as a whole before it replaces anything, and replaces it at once.

    Returns:
        The file that was written and the number of its models.

    Raises:
        ConfigError: The source cannot be read or is broken; what was there stays in place.
    """
    place = os.fspath(source)
    text = _text(place)
    try:
        count = NativeCatalog.check(text)
    except EngineError as error:
        told = from_engine(error)
        raise ConfigError(f"{place}: {told}", param="catalog") from None
    from hashlib import sha256
    from tempfile import mkstemp

    folder = data_folder()
    path = os.path.join(folder, FILE_NAME)  # noqa: PTH118
    data = text.encode()
    try:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103
        # First the sum, then the file: if the work stops between them, the old file no longer has its sum,
        # and the package's catalogue counts until the update is repeated.
        for name, content in ((f"{path}.sha256", f"{sha256(data).hexdigest()}\n".encode()), (path, data)):
            handle, temporary = mkstemp(dir=folder, prefix=".models-")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.replace(temporary, name)  # noqa: PTH105
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written: {error.strerror or error}", param="catalog"
        ) from error
    return path, count


def _text(place: str) -> str:
    from zipfile import BadZipFile, ZipFile

    try:
        if place.endswith(".whl"):
            with ZipFile(place) as wheel:
                return wheel.read(f"liter_llm/{FILE_NAME}").decode()
        with open(place, "rb") as file:  # noqa: PTH123
            return file.read().decode()
    except KeyError:
        raise ConfigError(f"{place}: holds no liter_llm/{FILE_NAME}", param="catalog") from None
    except (OSError, BadZipFile, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigError(f"{place}: cannot be read: {reason}", param="catalog") from error


__all__ = ["Catalog", "ModelInfo", "ModelLimits", "base_path", "data_folder", "is_whole", "update"]
