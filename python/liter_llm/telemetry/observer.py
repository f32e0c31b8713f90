"""What a client does about telemetry at each call: mostly nothing, and that quickly.

OpenTelemetry is never imported here: who uses it has imported it. Everything that makes spans and metrics is
imported at the first call that is recorded.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec

from liter_llm._native import EngineError

from .options import DEFAULT, Telemetry, checked, of_file

if TYPE_CHECKING:
    from liter_llm._native import Engine
    from liter_llm.config_file import Loaded
    from liter_llm.config_live import LiveConfig

    from .hooks import CallHook
    from .meters import Instruments
    from .observed import Observed
    from .record import CallRecord
    from .spans import Opening

_TRACE = "opentelemetry.trace"
_METRICS = "opentelemetry.metrics._internal"
_STATES = __name__.replace("observer", "states")
_modules = sys.modules
#: Where the environment names a provider, OpenTelemetry makes it when it is first asked for.
_named = any(os.environ.get(f"OTEL_PYTHON_{signal}_PROVIDER") for signal in ("TRACER", "METER"))
#: The level from which retries and fallbacks are logged.
INFO = 20
#: That of the engine's notices: circuits that open, budgets that are reached.
WARNING = 30
#: How many openings of spans are kept: one for each model that calls have named.
_MOST_OPENINGS = 64

#: The logger `liter_llm.call`, once somebody has imported `logging`: before that nobody can have set it up.
_log: Any = None
_observers: weakref.WeakSet[Observer] = weakref.WeakSet()


def _find_log() -> Any:
    global _log  # noqa: PLW0603 - found once
    logging = _modules.get("logging")
    getter = getattr(logging, "getLogger", None)
    _log = None if getter is None else getter("liter_llm.call")
    return _log


#: The class `Observed`, once a call was observed.
_observed: Any = None


def _find_observed() -> Any:
    global _observed  # noqa: PLW0603 - found once
    from .observed import Observed

    _observed = Observed
    return Observed


class Place(msgspec.Struct, frozen=True):
    """Where the requests of a deployment go."""

    deployment: str = ""
    provider: str = ""
    model: str = ""
    region: str | None = None
    server_address: str | None = None
    server_port: int | None = None


_decode_places = msgspec.json.Decoder(list[Place]).decode


def agreed(places: list[Place]) -> Place:
    """What all places have in common."""

    def common(name: str) -> Any:
        values = {getattr(place, name) for place in places}
        return values.pop() if len(values) == 1 else None

    server = common("server_address")
    return Place(
        provider=common("provider") or "",
        model=common("model") or "",
        server_address=server,
        server_port=common("server_port") if server else None,
    )


class Observer:
    """What is observed of the calls through one engine.

    Attributes:
        engine: The engine whose calls they are.
        telemetry: What is recorded.
        hooks: Who hears of each call that has ended.
        records_content: Whether prompts and answers are recorded.
    """

    __slots__ = (
        "__weakref__",
        "_instruments",
        "_live",
        "_loaded",
        "_meter_provider",
        "_openings",
        "_place",
        "_plain",
        "_root",
        "_tracer",
        "_tracer_provider",
        "engine",
        "given",
        "hooks",
        "records_content",
        "telemetry",
    )

    def __init__(
        self,
        engine: Engine,
        telemetry: Telemetry | None = None,
        *,
        live: LiveConfig | None = None,
        inherited: Observer | None = None,
    ) -> None:
        """`telemetry` beats what the file `live` says, and that what `inherited` has."""
        self.engine = engine
        self.given = telemetry
        # Not itself: a client that is dropped is to go at once, without the garbage collector.
        self._root: Observer | None = None if inherited is None else inherited.root
        self.hooks: list[CallHook] = []
        self._live = live if inherited is None else inherited._live
        self._loaded: object = None
        self._place: Place | None = None
        self._openings: dict[tuple[str, bool], Opening] = {}
        self._tracer_provider: object = None
        self._tracer: Any = None
        self._meter_provider: object = None
        self._instruments: Instruments | None = None
        self._plain = False
        if telemetry is None and live is not None:
            telemetry = of_file(live.loaded.document)
        if telemetry is None and inherited is not None:
            telemetry = inherited.telemetry
        self._set(checked(telemetry))
        _observers.add(self)
        if self._live is not None:
            self._live.observers.add(self)
        if "LITER_LLM_LOG" in os.environ:
            from .logs import set_up

            set_up()

    @property
    def root(self) -> Observer:
        """What observes the engine that this one shares: its state is told once."""
        return self._root or self

    def give(self, telemetry: Telemetry) -> None:
        """Records like this from the next call on, whatever a file says.

        Raises:
            ConfigError: It is no `Telemetry`.
        """
        checked(telemetry)
        self.given = telemetry
        self._set(telemetry)

    def reloaded(self, loaded: Loaded) -> None:
        """Another file is in force: what it says holds where nothing was given in code."""
        if self.given is None and self.root.given is None:
            self._set(checked(of_file(loaded.document)))

    def _set(self, telemetry: Telemetry) -> None:
        self.telemetry = telemetry
        self.records_content = telemetry.records_content
        self._tracer_provider = self._meter_provider = None
        self._settle()

    def _settle(self) -> None:
        telemetry = self.telemetry
        #: Whether it is enough to look whether the host has set a provider.
        self._plain = not (
            _named
            or telemetry.tracer_provider is not None
            or telemetry.meter_provider is not None
            or any(hook.lost for hook in self.hooks)
        )

    def begin(self, request: bytes, fields: Mapping[str, Any], *, streamed: bool = False) -> Observed | None:
        """A call begins; `None` when nobody wants to know of it. Streams are begun with `Observed.open`."""
        if self._plain:
            trace = _modules.get(_TRACE)
            if trace is None or getattr(trace, "_TRACER_PROVIDER", trace) is None:
                metrics = _modules.get(_METRICS)
                if metrics is None or getattr(metrics, "_METER_PROVIDER", metrics) is None:
                    log = _log or _find_log()
                    if log is None:
                        return None
                    if not log.isEnabledFor(INFO):
                        if log.isEnabledFor(WARNING):
                            self.tell()
                        return None
        return self._begin(request, fields, streamed)

    def _begin(self, request: bytes, fields: Mapping[str, Any], streamed: bool) -> Observed | None:  # noqa: FBT001
        try:
            if self.hooks:
                self._hear_again()
            tracer = instruments = None
            if self.telemetry.enabled:
                tracer, instruments = self.tracer(), self.instruments()
            log = _log or _find_log()
            logged = log is not None and log.isEnabledFor(INFO)
            if tracer is None and instruments is None and not logged:
                return None
            observed = (_observed or _find_observed())(self, request, fields, tracer, instruments, logged)
            if streamed:
                observed.wait()
            else:
                observed.start(False)
        except Exception as error:  # noqa: BLE001 - a call does not fail for its telemetry
            from .logs import trouble

            trouble("a call could not be observed", error)
            return None
        return observed

    def tell(self) -> None:
        """Logs what the engine has noticed since the last look: next to nothing when that is nothing."""
        if _log is not None:
            try:
                notices = self.engine.notices()
            except EngineError:  # closed
                return
            if notices is not None:
                from .logs import notify

                notify(notices)

    # -------------------------------------------------------------------------------- the host's providers

    def tracer(self) -> Any:
        """The host's tracer; `None` when it has not set any up."""
        provider = self.telemetry.tracer_provider
        if provider is None:
            trace = _modules.get(_TRACE)
            provider = _provider(trace, "_TRACER_PROVIDER", "get_tracer_provider", "ProxyTracerProvider")
            if provider is None:
                return None
        if provider is not self._tracer_provider:
            from liter_llm import __version__

            from .names import SCHEMA_URL, SCOPE

            self._tracer = provider.get_tracer(SCOPE, __version__, SCHEMA_URL)
            self._tracer_provider = provider
        return self._tracer

    def instruments(self) -> Instruments | None:
        """The instruments of the host's meter; `None` when it has not set any up."""
        provider = self.telemetry.meter_provider
        if provider is None:
            metrics = _modules.get(_METRICS)
            provider = _provider(metrics, "_METER_PROVIDER", "get_meter_provider", "_ProxyMeterProvider")
            if provider is None:
                return None
        if provider is not self._meter_provider:
            from .meters import instruments_of

            self._instruments = instruments_of(provider)
            self._instruments.states.watch(self.root)
            self._meter_provider = provider
        return self._instruments

    # ------------------------------------------------------------------------------------- how spans begin

    def opening(self, model: str, streamed: bool) -> Opening:  # noqa: FBT001 - for speed
        """How a call's span begins, as far as that is known before the call."""
        if self._live is not None and self._live.loaded is not self._loaded:
            self._loaded = self._live.loaded
            self._place = None
            self._openings.clear()
        found = self._openings.get((model, streamed))
        if found is None:
            from .spans import Opening

            place = self._place
            if place is None:
                place = self._place = agreed(_decode_places(self.engine.places()))
            found = Opening(place, model or place.model, streamed=streamed)
            if len(self._openings) < _MOST_OPENINGS:
                self._openings[model, streamed] = found
        return found

    # ---------------------------------------------------------------------------------- who hears of calls

    def on_call(self, hook: Callable[[CallRecord], object], queue: int) -> CallHook:
        """Has `hook` hear of every call that begins from now on."""
        from .hooks import CallHook

        handle = CallHook(hook, queue, self)
        self.hooks.append(handle)
        return handle

    def forget(self, hook: CallHook) -> None:
        """The hook was closed."""
        with suppress(ValueError):
            self.hooks.remove(hook)

    def close(self) -> None:
        """There will be no more calls."""
        # There, too, where only others that share its engine have counted.
        states = _modules.get(_STATES)
        if states is not None:
            states.leave(self.root)
        for hook in list(self.hooks):
            hook.close()

    def _hear_again(self) -> None:
        """In a forked child: hooks have neither queue nor thread there until the first call."""
        lost = [hook for hook in self.hooks if hook.lost]
        for hook in lost:
            hook.attach()
        if lost:
            self._settle()

    def forked(self) -> None:
        """In a forked child: the parent's queues and threads are not there."""
        for hook in self.hooks:
            hook.lose()
        self._settle()


def _provider(module: Any, kept: str, getter: str, proxy: str) -> Any:
    """The provider that the host has set, or `None`."""
    if module is None:
        return None
    if not _named:
        provider = getattr(module, kept, module)
        if provider is not module:
            return provider
    # OpenTelemetry's own names have changed, or the environment names a provider that was not made yet.
    provider = getattr(module, getter)()
    return None if type(provider).__name__ == proxy else provider


def _forked() -> None:
    for observer in list(_observers):
        observer.forked()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forked)

__all__ = ["DEFAULT", "Observer", "Place", "Telemetry", "agreed"]
