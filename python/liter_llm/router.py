"""Several deployments behind one door: the router, and a single deployment of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Never, Self, Unpack, final

import msgspec

from ._native import Engine, EngineError
from .budget import Budget, BudgetSpend, BudgetWindow, Spend, SpendOf
from .catalog import base_path
from .config import ProviderConfig
from .errors import ConfigError, InvalidArgumentError, from_engine, told, unknown_name
from .exact import decoder
from .experiments import (
    Canary,
    CanaryArm,
    CanaryArms,
    CanaryEvidence,
    CanaryReport,
    Guard,
    Mirror,
    MirrorReport,
    read_canary,
    read_mirror,
)
from .from_file import FromFile
from .host import ProviderHost
from .layers import CacheOptions
from .policy import Candidate, Policy, PolicyHost, PolicyRequest, name_of
from .provider import LlmProvider
from .requests import Prompt, RequestFields, encode_request
from .route import Route, words
from .statistics import (
    DeploymentStatistics,
    Heatmap,
    HeatmapCell,
    HeatmapRow,
    PolicyFailures,
    RouterStatistics,
)
from .streams import LlmStream
from .telemetry.observer import Observer
from .telemetry.options import Telemetry
from .types import DeploymentState, LlmChunk, LlmRequest, LlmResponse

__all__ = [
    "Budget",
    "BudgetSpend",
    "BudgetWindow",
    "Canary",
    "CanaryArm",
    "CanaryArms",
    "CanaryEvidence",
    "CanaryReport",
    "Candidate",
    "DeploymentStatistics",
    "Endpoint",
    "Guard",
    "Heatmap",
    "HeatmapCell",
    "HeatmapRow",
    "Mirror",
    "MirrorReport",
    "Policy",
    "PolicyFailures",
    "PolicyRequest",
    "ProviderRouter",
    "RouterStatistics",
    "Spend",
    "SpendOf",
]

if TYPE_CHECKING:
    from ._native import Jobs
    from .config_file import Loaded
    from .telemetry.hooks import CallHook
    from .telemetry.record import CallRecord

#: More than anybody can mean.
_MANY = 1e6

_encode = msgspec.json.Encoder().encode
_decode_response = decoder(LlmResponse)
#: What is read off a provider written in Python, to route by.
_ROUTED_BY = ("model", "region", "tags", "weight", "priority", "supports", "context", "price")
#: What a policy sees of a deployment's configuration.
_SHOWN = ("provider", "model", "region", "weight", "priority")
_OPTIONS = [
    "deployments",
    "policy",
    "regions",
    "require_tags",
    "forbid_tags",
    "content_filter_fallback",
    "timeout",
    "max_retries",
    "cache",
    "budget",
    "canary",
    "mirror",
    "telemetry",
]


def _border(request: LlmRequest | Prompt | None, fields: dict[str, Any]) -> bytes:
    """The border form of a request as a provider takes it, or of a call's arguments."""
    if not isinstance(request, LlmRequest):
        return encode_request(request, fields)
    if fields:
        raise ConfigError(
            f"`{next(iter(fields))}`: belongs into the LlmRequest, or give a prompt instead", param="request"
        )
    return _encode(request)


def _observed_fields(request: LlmRequest | Prompt | None, fields: dict[str, Any]) -> dict[str, Any]:
    """What telemetry reads of a call's arguments."""
    if not isinstance(request, LlmRequest):
        return fields
    return {"model": request.model, "response_format": request.response_format, "extra": request.extra}


class _OnEngine(LlmProvider):
    """A provider that is the engine's: what asks it, and how its errors come out."""

    def __init__(self, engine: Engine, observer: Observer) -> None:
        self._liter_llm_engine = self._engine = engine
        self._liter_llm_observer = self._observer = observer

    @property
    def telemetry(self) -> Telemetry:
        """What is recorded of its calls; may be set, for the calls to come. Its clients begin with it."""
        return self._observer.telemetry

    @telemetry.setter
    def telemetry(self, telemetry: Telemetry) -> None:
        self._observer.give(telemetry)

    def on_call(self, hook: Callable[[CallRecord], object], *, queue: int = 1000) -> CallHook:
        """Has `hook` hear of every call of the router that begins from now on, when it is over.

        See `LiterLLM.on_call`: it can neither slow a call nor break one.

        Raises:
            InvalidArgumentError: `queue` is not a positive number, or `hook` no function.
            CallCancelledError: The router is closed.
        """
        return self._observer.on_call(hook, queue)

    def generate(
        self, request: LlmRequest | Prompt | None = None, **fields: Unpack[RequestFields]
    ) -> LlmResponse:
        """Answers a request and waits for it. A client's `generate` can do more (`output=`).

        Args:
            request: A request as a provider gets it, or a prompt.
            **fields: With a prompt: see `RequestFields`.

        Raises:
            LiterLlmError: See its subclasses.
        """
        given: dict[str, Any] = dict(fields)
        border = _border(request, given)
        observed = self._observer.begin(border, _observed_fields(request, given))
        try:
            if observed is None:
                return _decode_response(self._engine.generate(border)[0])
            return _decode_response(observed.generate(self._engine)[0])
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__

    def stream(
        self, request: LlmRequest | Prompt | None = None, **fields: Unpack[RequestFields]
    ) -> Iterator[LlmChunk]:
        """Answers a request piece by piece; errors of the call are raised while reading."""
        given: dict[str, Any] = dict(fields)
        border = _border(request, given)
        observed = self._observer.begin(border, _observed_fields(request, given), streamed=True)
        try:
            native = self._engine.open(border, None) if observed is None else observed.open(self._engine)
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__
        return iter(LlmStream(native, _decode_response, observed))


@final
class Endpoint(_OnEngine):
    """One deployment of a router, by itself: what `ProviderRouter.select` gives.

    It goes wherever a provider goes: `LiterLLM(endpoint)`. Its calls count in the router's statistics.

    Attributes:
        name: The deployment's name.
    """

    def __init__(self, name: str, engine: Engine, observer: Observer | None = None) -> None:
        super().__init__(engine, Observer(engine, inherited=observer))
        self.name = name

    def __reduce__(self) -> Never:
        raise TypeError("an Endpoint belongs to its router and cannot be pickled; select it again")


@final
class ProviderRouter(FromFile, _OnEngine):
    """Several deployments behind one door: each call goes to one that can take it.

    Goes wherever a provider goes: `LiterLLM(router)`, `AsyncLiterLLM(router)`. All its clients share one
    engine, and with it statistics and spend. Threads may share it; a forked process may go on using it.

    Args:
        deployments: `ProviderConfig`s, texts like `openai/gpt-4o-mini` and providers written in Python,
            mixed as you like. Each needs a name of its own; by default it is `provider/model`.
        policy: How deployments are put in order: `priority` (the default), `latency`, `cost`, `weighted`,
            `least_busy`, `round_robin`; or a `Policy` of your own, which is asked once on trial.
        regions: The regions calls may go to, also as a fallback. Default all.
        require_tags: Tags a deployment must all have.
        forbid_tags: Tags a deployment must not have.
        content_filter_fallback: Whether a call refused by a content filter goes elsewhere. Default False.
        timeout: The limit for a whole call in seconds: queueing, attempts, waits and fallbacks. Default 600.
        max_retries: Repeats at deployments already tried, all together. Going to another deployment is no
            repeat. Default 3.
        cache: The response cache: `CacheOptions`, or True. Default off.
        budget: How much calls may cost: a `Budget`, or several of them. Default no limit.
        canary: A deployment that gets a share of the calls, and none any more once it is worse than the
            others: a `Canary`. Default none.
        mirror: A deployment that gets copies of calls: a `Mirror`. Default none.
        telemetry: What the host's OpenTelemetry is given of its calls. Default everything but prompts and
            answers.

    Raises:
        ConfigError: Something cannot work; the message names the option and the remedy.
        InvalidArgumentError: The policy of your own cannot work.
    """

    name = "router"

    def __init__(
        self,
        deployments: Iterable[ProviderConfig | LlmProvider | str],
        *,
        policy: str | Policy = "priority",
        regions: Collection[str] = (),
        require_tags: Collection[str] = (),
        forbid_tags: Collection[str] = (),
        content_filter_fallback: bool = False,
        timeout: float | None = None,
        max_retries: int | None = None,
        cache: CacheOptions | bool | Mapping[str, Any] | None = None,
        budget: Budget | Iterable[Budget] = (),
        canary: Canary | None = None,
        mirror: Mirror | None = None,
        telemetry: Telemetry | None = None,
        **unknown: Never,
    ) -> None:
        for option in unknown:
            raise ConfigError(f"`{option}` is unknown{unknown_name(option, _OPTIONS)}", param=option)
        self._deployments = _listed(deployments)
        self._given: dict[str, Any] = {
            "policy": policy,
            "regions": words("regions", regions, ConfigError),
            "require_tags": words("require_tags", require_tags, ConfigError),
            "forbid_tags": words("forbid_tags", forbid_tags, ConfigError),
            "content_filter_fallback": content_filter_fallback,
            "timeout": timeout,
            "max_retries": max_retries,
            "budget": _budgets(budget),
            "canary": read_canary(canary),
            "mirror": read_mirror(mirror),
        }
        self._cache = cache if cache is None or isinstance(cache, bool) else CacheOptions.read("cache", cache)
        engine = self._built()
        super().__init__(engine, Observer(engine, telemetry))

    @classmethod
    def _over_file(cls, loaded: Loaded, *, watch: bool) -> Self:
        from .config_live import over_file

        engine, live = over_file(loaded, watch=watch)
        router = cls.__new__(cls)
        _OnEngine.__init__(router, engine, Observer(engine, live=live))
        router._file = live
        return router

    def _no_file(self) -> str:
        return "this router was not made from a file: there is nothing to reload"

    def _built(self) -> Engine:
        configs: list[dict[str, Any]] = []
        hosts: dict[int, ProviderHost] = {}
        for position, deployment in enumerate(self._deployments):
            if isinstance(deployment, LlmProvider):
                hosts[position] = ProviderHost(deployment)
                deployment = _routed_by(deployment, position)  # noqa: PLW2901
            configs.append(deployment._revealed())  # pyright: ignore[reportPrivateUsage]
        if hosts and self._cache:
            name = hosts[next(iter(hosts))].name
            raise ConfigError(
                f"`cache`: nobody can tell which answers of `{name}`, which is written in Python, are alike; "
                "leave `cache` out",
                param="cache",
            )
        given = {name: value for name, value in self._given.items() if value not in (None, ())}
        policy: PolicyHost | None = None
        if not isinstance(self._given["policy"], str):
            given.pop("policy", None)
            policy = PolicyHost(self._given["policy"], [_candidate(config) for config in configs])
        document: dict[str, Any] = {
            "deployments": configs,
            "router": given,
            "catalog_base": base_path(),
        }
        if self._cache is not None:
            document["cache"] = self._cache
        try:
            return Engine(_encode(document), hosts, policy, _Aside() if hosts else None)
        except EngineError as error:
            failure = from_engine(error)
            raise failure from failure.__cause__

    @property
    def deployments(self) -> list[ProviderConfig | LlmProvider]:
        """What the router picks from, in the order given."""
        if self._file is not None:
            return list(self._file.loaded.deployments)
        return list(self._deployments)

    def select(self, request: LlmRequest | Prompt | None = None, **fields: Unpack[RequestFields]) -> Endpoint:
        """The deployment this request would go to now, ready to be called. Nothing is sent.

        Raises:
            NoCandidateError: No deployment can take it; the message says what rules out which.
        """
        border = _border(request, dict(fields))
        return Endpoint(*told(self._engine.select, border), observer=self._observer)

    def explain(
        self,
        request: LlmRequest | Prompt | None = None,
        *,
        streamed: bool = False,
        **fields: Unpack[RequestFields],
    ) -> Route:
        """Where this request would go now and why, with every deployment listed. Nothing is sent.

        Args:
            request: A request as a provider gets it, or a prompt.
            streamed: Whether it is for a stream: then the time to the first chunk counts.
            **fields: With a prompt: see `RequestFields`.
        """
        border = _border(request, dict(fields))
        return msgspec.json.decode(told(self._engine.explain, border, streamed), type=Route)

    def describe(self) -> dict[str, Any]:
        """The policy, and where each deployment's calls go. No secrets."""
        facts: dict[str, Any] = msgspec.json.decode(told(self._engine.describe))
        return facts

    def state(self) -> list[DeploymentState]:
        """How the deployments are doing: circuit, cooldown, calls in flight and in line."""
        return msgspec.json.decode(told(self._engine.state), type=list[DeploymentState])

    def statistics(self) -> RouterStatistics:
        """Calls, failures and times of each deployment, and how often a policy of your own was not heard."""
        return msgspec.json.decode(told(self._engine.figures), type=RouterStatistics)

    def heatmap(self, *, bucket: float = 20.0, count: int = 30) -> Heatmap:
        """Latency by deployment and time; ten minutes with traffic are kept.

        Args:
            bucket: Seconds in a bucket, rounded up to tens.
            count: How many buckets, at most 60.
        """
        for name, value in (("bucket", bucket), ("count", count)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < _MANY:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InvalidArgumentError(f"`{name}`: {value!r} is not a positive number", param=name)
        return msgspec.json.decode(told(self._engine.heatmap, bucket, count), type=Heatmap)

    def canary(self) -> CanaryReport | None:
        """How the canary does against the others, and why it was rolled back; `None` without one."""
        return msgspec.json.decode(told(self._engine.canary), type=CanaryReport | None)

    def mirror(self) -> MirrorReport | None:
        """How the copies of calls do; `None` without a mirror."""
        return msgspec.json.decode(told(self._engine.mirror), type=MirrorReport | None)

    def spend(self) -> Spend:
        """What calls have cost, by budget, deployment and caller. Reads the budgets' file if there is one.

        Raises:
            BudgetExceededError: The file cannot be read.
        """
        return msgspec.json.decode(told(self._engine.spend), type=Spend)

    def clear_cache(self) -> None:
        """Forgets all cached answers; those on their way are kept when they arrive."""
        told(self._engine.clear_cache)

    def close(self) -> None:
        """Closes idle connections. Calls made afterwards, by any of its clients, raise `CallCancelledError`.

        Closing a client of the router leaves the router open. Polite, not required.
        """
        if self._file is not None:
            self._file.stop()
        self._observer.close()
        self._engine.close()

    def __repr__(self) -> str:
        if self._file is not None:
            return f"ProviderRouter({self._file.loaded.path})"
        names = ", ".join(_name(deployment) for deployment in self._deployments)
        policy: object = self._given["policy"]
        shown = repr(policy) if isinstance(policy, str) else name_of(policy)
        return f"ProviderRouter([{names}], policy={shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._file is not None:
            return (_rebuild_from_file, (self._file.loaded, self._file.watched, self._observer.given))
        given = {**self._given, "cache": self._cache, "telemetry": self._observer.given}
        return (_rebuild, (self._deployments, given))


class _Aside:
    """Starts the thread that has providers written in Python answer the engine's own calls: trials."""

    def start(self, jobs: Jobs) -> None:
        thread = threading.Thread(target=_attend, args=(jobs,), name="liter-llm-aside", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is on its way out
            jobs.close()


def _attend(jobs: Jobs) -> None:
    while (job := jobs.next()) is not None:
        # In a thread of its own: a slow provider is not to keep the others waiting.
        job.host.spawn(job)
        del job


def _budgets(budget: object) -> tuple[Budget, ...]:
    if isinstance(budget, Budget):
        return (budget,)
    if isinstance(budget, (Mapping, str)) or not isinstance(budget, Iterable):
        raise ConfigError(f"`budget`: must be a Budget, not {type(budget).__name__}", param="budget")  # pyright: ignore[reportUnknownArgumentType]
    listed: list[Budget] = []
    for one in budget:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(one, Budget):
            raise ConfigError(f"`budget`: must be a Budget, not {type(one).__name__}", param="budget")  # pyright: ignore[reportUnknownArgumentType]
        listed.append(one)
    return tuple(listed)


def _rebuild(deployments: list[ProviderConfig | LlmProvider], given: dict[str, Any]) -> ProviderRouter:
    return ProviderRouter(deployments, **given)


def _rebuild_from_file(
    loaded: Loaded,
    watch: bool,  # noqa: FBT001 - of a pickle
    telemetry: Telemetry | None = None,
) -> ProviderRouter:
    router = ProviderRouter._over_file(loaded, watch=watch)  # pyright: ignore[reportPrivateUsage]
    if telemetry is not None:
        router.telemetry = telemetry
    return router


def _name(deployment: ProviderConfig | LlmProvider) -> str:
    if isinstance(deployment, LlmProvider):
        return deployment.name
    return deployment.name or "/".join(part for part in (deployment.provider, deployment.model) if part)


def _listed(deployments: object) -> list[ProviderConfig | LlmProvider]:
    if isinstance(deployments, (str, ProviderConfig, LlmProvider, Mapping)) or not isinstance(
        deployments, Iterable
    ):
        raise ConfigError(
            "`deployments`: must be a list of ProviderConfig, texts like `openai/gpt-4o-mini` and "
            f"LlmProvider, not one {type(deployments).__name__}",  # pyright: ignore[reportUnknownArgumentType]
            param="deployments",
        )
    listed: list[ProviderConfig | LlmProvider] = []
    for position, deployment in enumerate(deployments):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        place = f"deployments[{position}]"
        if isinstance(deployment, str):
            try:
                deployment = ProviderConfig.from_string(deployment)  # noqa: PLW2901
            except ConfigError as error:
                raise ConfigError(f"`{place}`: {error}", param=place) from error
        if isinstance(deployment, _OnEngine):
            raise ConfigError(
                f"`{place}`: a router cannot be a deployment of another; list its deployments instead",
                param=place,
            )
        if not isinstance(deployment, (ProviderConfig, LlmProvider)):
            raise ConfigError(
                f"`{place}`: must be a ProviderConfig, a text like `openai/gpt-4o-mini` or an LlmProvider, "
                f"not {type(deployment).__name__}",  # pyright: ignore[reportUnknownArgumentType]
                param=place,
            )
        listed.append(deployment)
    return listed


def _routed_by(provider: LlmProvider, position: int) -> ProviderConfig:
    """A provider written in Python as a deployment of the document: its name, and what it says of itself."""
    given: dict[str, Any] = {name: getattr(provider, name, None) for name in _ROUTED_BY}
    given["provider"] = given["name"] = provider.name
    try:
        return ProviderConfig(**given)
    except ConfigError as error:
        place = f"deployments[{position}]"
        raise ConfigError(f"`{place}` ({provider.name}): {error}", param=place) from error


def _candidate(config: dict[str, Any]) -> Candidate:
    """A deployment as a policy sees it before the first call."""
    shown: dict[str, Any] = {name: config[name] for name in _SHOWN if name in config}
    shown["name"] = config.get("name") or "/".join(
        config[part] for part in ("provider", "model") if part in config
    )
    shown["tags"] = frozenset(config.get("tags", ()))
    return Candidate(**shown)


def exported(name: str) -> object:
    """What the package shows under this name, for its late import."""
    return globals()[name]
