"""Configuration of a deployment."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Literal, Never, Self, cast, final

import msgspec

from .catalog import base_path
from .errors import ConfigError, unknown_name
from .layers import CacheOptions, CircuitOptions, HedgeOptions, LayerOptions, PriceOptions
from .secret import Secret

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECRETS = frozenset({"api_key", "azure_ad_token", "client_secret"})
_DURATIONS = frozenset({"timeout", "connect_timeout", "first_byte_timeout", "idle_timeout"})
_URLS = frozenset({"base_url", "proxy"})
_LAYERS: dict[str, type[LayerOptions]] = {
    "circuit": CircuitOptions,
    "hedge": HedgeOptions,
    "cache": CacheOptions,
    "price": PriceOptions,
}
#: A vendor field with one of these in its name is not shown; the engine goes by the same words.
_SECRET_WORDS = ("auth", "key", "token", "secret", "password", "cookie", "credential", "signature")
#: Not encryption: it keeps a pickle from showing a key to whoever looks through a file or a log.
VEIL = bytes(byte ^ 0xA5 for byte in range(256))
_MOST_RETRIES = 100
_CHOICES: dict[str, tuple[str, ...]] = {"api": ("chat", "responses"), "transport": ("http", "websocket")}
_FIELDS = (
    "provider",
    "model",
    "api_key",
    "base_url",
    "api",
    "transport",
    "deployment",
    "api_version",
    "azure_ad_token",
    "tenant_id",
    "client_id",
    "client_secret",
    "federated_token_file",
    "managed_identity",
    "organization",
    "project",
    "region",
    "weight",
    "priority",
    "tags",
    "supports",
    "context",
    "price",
    "timeout",
    "connect_timeout",
    "first_byte_timeout",
    "idle_timeout",
    "max_retries",
    "resend_after_send",
    "circuit",
    "concurrency",
    "rpm",
    "tpm",
    "hedge",
    "cache",
    "headers",
    "extra",
    "proxy",
    "name",
)
_SCHEMES = {
    "base_url": ("http", "https", "ws", "wss"),
    "proxy": ("http", "https", "socks5", "socks5h", "socks4"),
}


@final
class ProviderConfig:
    """Where calls go and how: provider, model, credentials, time limits. Immutable; checked when it is made.

    What is not given is taken from the environment under the vendor's own names (`OPENAI_API_KEY`,
    `ANTHROPIC_BASE_URL`, ...), then from the provider's row. Keys are never shown by `repr`, `str` or
    `to_dict()`.

    Args:
        provider: The provider's name, for instance `openai`, `anthropic`, `azure`.
        model: The model's name, sent verbatim.
        api_key: The provider's key.
        base_url: Where the API is. OpenAI and compatible hosts: including `/v1`; Anthropic: without; Azure:
            the resource.
        api: `chat` (the default) or `responses`, where the provider has it.
        transport: `http` (the default) or `websocket`.
        deployment: Azure: the deployment's name; defaults to `model`.
        api_version: Azure: the API's version.
        azure_ad_token: Azure: a Microsoft Entra ID token instead of a key.
        tenant_id: Azure: the tenant, for client secret and workload identity.
        client_id: Azure: the application or managed identity.
        client_secret: Azure: the application's secret.
        federated_token_file: Azure: the token file of a workload identity.
        managed_identity: Azure: use the machine's managed identity.
        organization: OpenAI: the organization billed.
        project: OpenAI: the project billed.
        region: The region: a word of your own, for a router's `regions`.
        weight: The share of traffic under a router's policy `weighted`, beside the other deployments'
            weights. Default 1.
        priority: The rank under a router's policy `priority`, lower first. Default 0.
        tags: Words of your own for routing, for instance `{"fast", "zero-retention"}`.
        supports: What the deployment can do, where the catalogue does not know or is wrong: for instance
            `{"tools": True, "image_input": False}`.
        context: The most tokens of input and output together, where the catalogue does not know or is wrong.
        price: What the deployment charges, in US dollars for a million tokens, in place of the catalogue's
            prices: `PriceOptions`, or a dict such as `{"input": 0.15, "output": 0.6}`.
        timeout: The limit for a whole call in seconds, retries and waits included. Default 600.
        connect_timeout: The limit for making a connection in seconds. Default 10.
        first_byte_timeout: The limit for the first byte of an answer in seconds. Default 120.
        idle_timeout: The limit for silence between the pieces of an answer in seconds. Default 60.
        max_retries: How often a failed call is sent again. Default 3.
        resend_after_send: Whether a generation may be sent again after the connection broke before any byte
            of an answer. Such a call may be billed twice. Default True.
        circuit: The circuit breaker: `CircuitOptions`, or False for none. Default on.
        concurrency: The most calls in flight; further ones wait in line, within their deadline. Default
            unlimited.
        rpm: The most requests a minute. Default unlimited.
        tpm: The most tokens a minute, input and output. Default unlimited.
        hedge: A second request for calls that are slow to answer: `HedgeOptions`, or True. Default off.
        cache: The response cache: `CacheOptions`, or True. Default off.
        headers: More HTTP headers for every call.
        extra: Vendor fields put into every request's body.
        proxy: The proxy's URL, or `direct` for none; not given, the usual environment variables count.
        name: A name of your own for this deployment.

    Raises:
        ConfigError: An option is unknown or cannot work; the message names it and the remedy.
    """

    __slots__ = _FIELDS

    provider: str
    model: str | None
    api_key: Secret | None
    base_url: str | None
    api: Literal["chat", "responses"] | None
    transport: Literal["http", "websocket"] | None
    deployment: str | None
    api_version: str | None
    azure_ad_token: Secret | None
    tenant_id: str | None
    client_id: str | None
    client_secret: Secret | None
    federated_token_file: str | None
    managed_identity: bool | None
    organization: str | None
    project: str | None
    region: str | None
    weight: float | None
    priority: int | None
    tags: Collection[str] | None
    supports: Mapping[str, bool] | None
    context: int | None
    price: PriceOptions | None
    timeout: float | None
    connect_timeout: float | None
    first_byte_timeout: float | None
    idle_timeout: float | None
    max_retries: int | None
    resend_after_send: bool | None
    circuit: CircuitOptions | bool | None
    concurrency: int | None
    rpm: int | None
    tpm: int | None
    hedge: HedgeOptions | bool | None
    cache: CacheOptions | bool | None
    headers: Mapping[str, str] | None
    extra: Mapping[str, Any] | None
    proxy: str | None
    name: str | None

    def __init__(
        self,
        provider: str,
        model: str | None = None,
        *,
        api_key: str | Secret | None = None,
        base_url: str | None = None,
        api: Literal["chat", "responses"] | None = None,
        transport: Literal["http", "websocket"] | None = None,
        deployment: str | None = None,
        api_version: str | None = None,
        azure_ad_token: str | Secret | None = None,
        tenant_id: str | None = None,
        client_id: str | None = None,
        client_secret: str | Secret | None = None,
        federated_token_file: str | os.PathLike[str] | None = None,
        managed_identity: bool | None = None,
        organization: str | None = None,
        project: str | None = None,
        region: str | None = None,
        weight: float | None = None,
        priority: int | None = None,
        tags: Collection[str] | None = None,
        supports: Mapping[str, bool] | None = None,
        context: int | None = None,
        price: PriceOptions | Mapping[str, Any] | None = None,
        timeout: float | None = None,
        connect_timeout: float | None = None,
        first_byte_timeout: float | None = None,
        idle_timeout: float | None = None,
        max_retries: int | None = None,
        resend_after_send: bool | None = None,
        circuit: CircuitOptions | bool | Mapping[str, Any] | None = None,
        concurrency: int | None = None,
        rpm: int | None = None,
        tpm: int | None = None,
        hedge: HedgeOptions | bool | Mapping[str, Any] | None = None,
        cache: CacheOptions | bool | Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, Any] | None = None,
        proxy: str | None = None,
        name: str | None = None,
        **unknown: Never,
    ) -> None:
        # Tools that show the variables of a traceback are not to show a key.
        api_key, azure_ad_token, client_secret = map(_hidden, (api_key, azure_ad_token, client_secret))
        given = locals()
        for option in list(unknown):
            unknown.clear()
            raise ConfigError(f"`{option}` is unknown{unknown_name(option, list(_FIELDS))}", param=option)
        for option in _FIELDS:
            object.__setattr__(self, option, _checked(option, given[option]))

    @classmethod
    def from_string(cls, text: str) -> Self:
        """`provider/model`, split at the first slash, for instance `anthropic/claude-sonnet-4-5`."""
        provider, slash, model = text.partition("/")
        if not slash or not provider or not model:
            raise ConfigError(
                f"{text!r} is not `provider/model`, for instance `openai/gpt-4o-mini`; "
                "without a model use ProviderConfig(provider=...)",
                param="provider",
            )
        return cls(provider, model)

    def replace(self, **changes: Any) -> ProviderConfig:
        """A copy with some options changed."""
        return ProviderConfig(**{**dict(self._given()), **changes})

    def to_dict(self) -> dict[str, Any]:
        """The options that were given; secrets, header values and passwords in URLs are masked."""
        return {option: _masked(option, value) for option, value in self._given()}

    def _given(self) -> Iterator[tuple[str, Any]]:
        for option in _FIELDS:
            # A debugger may look at an instance whose making failed.
            value = getattr(self, option, None)
            if value is not None:
                yield option, value

    def _revealed(self) -> dict[str, Any]:
        return {name: value.reveal() if isinstance(value, Secret) else value for name, value in self._given()}

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a ProviderConfig cannot be changed; use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a ProviderConfig cannot be changed")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProviderConfig) and list(self._given()) == list(other._given())

    def __hash__(self) -> int:
        unhashable = {"headers", "extra", "supports"}
        return hash(tuple((name, value) for name, value in self._given() if name not in unhashable))

    def __repr__(self) -> str:
        return f"ProviderConfig({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"

    def __reduce__(self) -> tuple[Any, ...]:
        import pickle

        # All of it: headers, URLs and vendor fields may hold secrets as well.
        return (_rebuild, (pickle.dumps(dict(self._given())).translate(VEIL),))


def _rebuild(given: bytes) -> ProviderConfig:
    import pickle

    return ProviderConfig(**pickle.loads(given.translate(VEIL)))  # noqa: S301 - inside a pickle already


def _masked(option: str, value: Any) -> Any:
    if option in _SECRETS:
        return "***"
    if option == "headers":
        return dict.fromkeys(value, "***")
    if option in _URLS and not (option == "proxy" and value == "direct"):
        scheme, mark, rest = value.rpartition("://")
        user, at, host = rest.rpartition("@")
        text = f"{scheme}{mark}***@{host}" if at and user else str(value)
        path, mark, query = text.partition("?")
        return f"{path}?{'&'.join(map(_masked_pair, query.split('&')))}" if mark else text
    if isinstance(value, Mapping):
        return {
            name: "***" if _sounds_secret(name) and isinstance(item, str) else item
            for name, item in cast("Mapping[str, Any]", value).items()
        }
    return value


def _masked_pair(pair: str) -> str:
    name, mark, _ = pair.partition("=")
    return pair if name == "api-version" else f"{name}=***" if mark else "***"


def _sounds_secret(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in _SECRET_WORDS)


def _bad(option: str, what: str) -> ConfigError:
    return ConfigError(f"`{option}`: {what}", param=option)


def _checked(option: str, value: Any) -> Any:
    """The value as it is kept. Messages never hold a secret's text."""
    if value is None:
        if option == "provider":
            raise _bad(option, "is missing: give a provider's name, for instance `openai`")
        return None
    if option in _LAYERS:
        return value if isinstance(value, bool) and option != "price" else _LAYERS[option].read(option, value)
    if option == "federated_token_file" and isinstance(value, os.PathLike):
        value = os.fspath(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return _CHECKS.get(option, _text)(option, value)  # pyright: ignore[reportUnknownArgumentType]


def _seconds(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise _bad(option, f"{value!r} is not a positive number of seconds")
    return float(value)


def _switch(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad(option, f"{value!r} is neither True nor False")
    return value


def _count(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value < 1 << 32:
        raise _bad(option, f"{value!r} is not a whole number of at least 1; leave it out for no limit")
    return value


def _weight(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
        raise _bad(option, f"{value!r} is not a number from 0 up")
    return float(value)


def _rank(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise _bad(option, f"{value!r} is not a whole number from 0 up")
    return value


def _words(option: str, value: object) -> tuple[str, ...]:
    from .route import words

    return words(option, value, ConfigError)


def _abilities(option: str, value: object) -> dict[str, bool]:
    if not isinstance(value, Mapping):
        raise _bad(option, f"must be a dict like {{'tools': True}}, not {type(value).__name__}")
    abilities: dict[object, object] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
    for name, able in abilities.items():
        if not isinstance(name, str) or not isinstance(able, bool):
            raise _bad(option, f"{name!r}: {able!r} does not say of an ability whether it is there")
    return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _retries(option: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_RETRIES:
        raise _bad(option, f"{value!r} is not a whole number from 0 to {_MOST_RETRIES}")
    return value


def _hidden(value: str | Secret | None) -> str | Secret | None:
    return Secret(value) if isinstance(value, str) else value


def _secret(option: str, value: object) -> Secret:
    if not isinstance(value, Secret):
        raise _bad(option, f"must be text, not {type(value).__name__}")
    if not value:
        raise _bad(option, "is empty; leave it out to use the environment")
    if not _fits_a_header(value.reveal()):
        raise _bad(
            option,
            "holds a space, a line break or another character no key may hold; was it read with strip()?",
        )
    return value


def _fits_a_header(text: str) -> bool:
    return text.isascii() and text.isprintable() and " " not in text


def _headers(option: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise _bad(option, f"must be a dict of names and values, not {type(value).__name__}")
    for name, text in value.items():  # pyright: ignore[reportUnknownVariableType]
        if (
            not isinstance(name, str)
            or not name
            or not name.isascii()
            or any(c in ' \t\r\n:"(),/' for c in name)
        ):
            raise _bad(option, f"{name!r} is not a header name")
        if not isinstance(text, str):
            raise _bad(option, f"the value of `{name}` must be text, not {type(text).__name__}")  # pyright: ignore[reportUnknownArgumentType]
        if any(c in "\r\n\0" for c in text):
            raise _bad(
                option, f"the value of `{name}` holds a line break or another character no header may hold"
            )
    return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _extra(option: str, value: object) -> dict[str, Any]:
    from .requests import encode_value

    if not isinstance(value, Mapping):
        raise _bad(option, f"must be a dict of vendor fields, not {type(value).__name__}")
    try:
        encode_value(value, option)  # pyright: ignore[reportUnknownArgumentType]
    except ValueError as error:
        raise ConfigError(str(error), param=option) from error
    return dict(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]


def _text(option: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(option, f"must be text, not {type(value).__name__}")
    if not value:
        raise _bad(option, "is empty; leave it out to use the default")
    if not value.isprintable():
        raise _bad(option, "holds a line break or another control character")
    if option in _CHOICES and value not in _CHOICES[option]:
        raise _bad(
            option,
            f"{value!r} is not a choice{unknown_name(value, list(_CHOICES[option])) or ''} "
            f"(one of {', '.join(_CHOICES[option])})",
        )
    if option in _URLS and not (option == "proxy" and value == "direct"):
        scheme, separator, rest = value.partition("://")
        host = rest.partition("/")[0].rpartition("@")[2]
        if not separator or scheme.lower() not in _SCHEMES[option] or not host.strip(":") or " " in value:
            shown = _masked(option, value)
            example = "https://host/v1" if option == "base_url" else "http://host:3128"
            raise _bad(option, f"{shown!r} is not a URL; it looks like `{example}`")
    return value


_CHECKS: dict[str, Callable[[str, object], Any]] = {
    **dict.fromkeys(_SECRETS, _secret),
    **dict.fromkeys(_DURATIONS, _seconds),
    **dict.fromkeys(("managed_identity", "resend_after_send"), _switch),
    **dict.fromkeys(("concurrency", "rpm", "tpm", "context"), _count),
    "weight": _weight,
    "priority": _rank,
    "tags": _words,
    "supports": _abilities,
    "max_retries": _retries,
    "headers": _headers,
    "extra": _extra,
}

# ------------------------------------------------------------------------------------------------- the
# document


class ConfigDocument(msgspec.Struct, frozen=True):
    """A deployment and the provider rows that come with it."""

    deployment: ProviderConfig
    providers: dict[str, Any] = {}

    def border(self) -> bytes:
        """The document as the engine takes it. It holds the secrets: it goes nowhere else."""
        document = {
            "deployment": self.deployment._revealed(),  # pyright: ignore[reportPrivateUsage]
            "providers": self.providers,
            "catalog_base": base_path(),
        }
        return msgspec.json.encode(document)
