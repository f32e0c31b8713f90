"""Policies of your own: what they see, how they are checked, and the thread that asks them."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, Protocol, final

import msgspec

from .errors import InvalidArgumentError
from .exact import decoder
from .types import LlmRequest
from .value import Value

if TYPE_CHECKING:
    from ._native import Question, Questions

#: Seconds a policy's trial may take; what is slower has no say in calls anyway.
_TRIAL = 0.25

_decode_request = decoder(LlmRequest)


class Candidate(Value, frozen=True):
    """A deployment that could take a call, as a policy sees it. Times are seconds, prices USD."""

    name: str
    """Its name."""
    provider: str = ""
    """The provider's name."""
    model: str = ""
    """The model; empty where the provider chooses."""
    region: str | None = None
    """The region."""
    tags: frozenset[str] = frozenset()
    """The words in its configuration."""
    weight: float = 1.0
    """The weight in its configuration."""
    priority: int = 0
    """The rank in its configuration, lower first."""
    price: float | None = None
    """The estimated price of this call; `None` when it is not known."""
    latency_p50: float | None = None
    """The middle of the times to a whole answer, lately; `None` while nothing is known."""
    latency_p95: float | None = None
    """The time that 95 % of whole answers stay under, lately."""
    first_chunk_p50: float | None = None
    """The middle of the times to a stream's first chunk, lately."""
    first_chunk_p95: float | None = None
    """The time that 95 % of first chunks stay under, lately."""
    in_flight: int = 0
    """Calls that have not ended, those in line included."""
    circuit: Literal["closed", "open", "half_open"] = "closed"
    """The state of its circuit."""
    suspect: bool = False
    """Whether it failed lately and has not answered since."""
    calls: int = 0
    """Calls ended."""
    failures: int = 0
    """Of these, those that failed through the deployment's fault."""


class _Call(msgspec.Struct, frozen=True):
    """A call in short, as it crosses the border."""

    model: str | None = None
    streamed: bool = False
    input_tokens: int = 0
    output_tokens: int = 0
    sticky: str | None = None
    key: str | None = None
    tenant: str | None = None


_decode_view = msgspec.json.Decoder(tuple[_Call, list[Candidate]]).decode


@final
class PolicyRequest:
    """A call, as a policy sees it.

    All fields of `LlmRequest` can be read too (`messages`, `prompt_text`, `max_tokens`, `metadata`, ...); the
    first of them fetches the whole request, which for long prompts takes a part of the policy's time.
    """

    __slots__ = ("_call", "_fetch", "_request")

    def __init__(self, call: _Call, fetch: Question | LlmRequest) -> None:
        self._call = call
        self._fetch = fetch
        self._request = fetch if isinstance(fetch, LlmRequest) else None

    @property
    def model(self) -> str | None:
        """The model the call names."""
        return self._call.model

    @property
    def streamed(self) -> bool:
        """Whether it is a stream."""
        return self._call.streamed

    @property
    def input_tokens(self) -> int:
        """The estimated tokens of the prompt."""
        return self._call.input_tokens

    @property
    def output_tokens(self) -> int:
        """The bound of the answer's tokens, or their estimate."""
        return self._call.output_tokens

    @property
    def sticky(self) -> str | None:
        """The word by which calls stick to a deployment."""
        return self._call.sticky

    @property
    def key(self) -> str | None:
        """Whose budget the call is charged to."""
        return self._call.key

    @property
    def tenant(self) -> str | None:
        """The tenant the call is made for."""
        return self._call.tenant

    @property
    def request(self) -> LlmRequest:
        """The whole request."""
        if self._request is None:
            self._request = (
                self._fetch if isinstance(self._fetch, LlmRequest) else _decode_request(self._fetch.request)
            )
        return self._request

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.request, name)

    def __repr__(self) -> str:
        call = self._call
        return f"PolicyRequest(model={call.model!r}, tokens={call.input_tokens}+{call.output_tokens})"


class Policy(Protocol):
    """A policy of your own: any object with this method. An attribute `name` is its name in a call's route.

    It runs on a thread of its own, one call after another, and has 5 ms for each; when it fails, takes longer
    or names what is no candidate, the call goes in the order of `priority`, which is counted and noted in
    `response.route`.

    Example:
        >>> class NearestFirst:
        ...     def select(self, request, candidates):
        ...         return sorted(candidates, key=lambda candidate: candidate.latency_p50 or 0)
    """

    def select(self, request: PolicyRequest, candidates: list[Candidate], /) -> Sequence[Candidate | str]:
        """The candidates, or their names, best first. Those left out come after them, by `priority`."""
        ...


class PolicyHost:
    """What the engine sees of a policy written in Python: its name, and what starts its thread."""

    def __init__(self, policy: Policy, deployments: list[Candidate]) -> None:
        _check(policy)
        _try_out(policy, deployments)
        self.policy = policy
        self.name = name_of(policy)

    def start(self, questions: Questions) -> None:
        """Begins to answer, once for each process."""
        thread = threading.Thread(
            target=_serve, args=(questions, self.policy), name="liter-llm-policy", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the interpreter is on its way out: calls go by the default order
            questions.close()


def name_of(policy: object) -> str:
    """The policy's name in a call's route."""
    name = getattr(policy, "name", None)
    return name if isinstance(name, str) and name else type(policy).__name__


def _serve(questions: Questions, policy: Policy) -> None:
    while (question := questions.next()) is not None:
        try:
            call, candidates = _decode_view(question.view)
            question.answer(names_in(policy.select(PolicyRequest(call, question), candidates)))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the next call is to be answered
            question.fail(_shown(error))
        del question


def _shown(error: BaseException) -> str:
    with suppress(Exception):
        return f"{type(error).__name__}: {error}".encode(errors="replace").decode()
    return type(error).__name__


def names_in(order: object) -> list[str]:
    """The names in what `select` returned.

    Raises:
        TypeError: It is no list of candidates or names.
    """
    if inspect.iscoroutine(order):
        order.close()
    if isinstance(order, (str, bytes)) or not isinstance(order, Iterable):
        raise TypeError(f"select() returned {type(order).__name__}, not a list of candidates or names")
    names: list[str] = []
    for item in order:  # pyright: ignore[reportUnknownVariableType]
        name: object = item.name if isinstance(item, Candidate) else item  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(name, str):
            raise TypeError(f"select() named {type(name).__name__}, neither a candidate nor a name")  # pyright: ignore[reportUnknownArgumentType]
        names.append(name)
    return names


def _bad(what: str) -> InvalidArgumentError:
    return InvalidArgumentError(f"`policy`: {what}", param="policy")


def _check(policy: object) -> None:
    if isinstance(policy, type):
        raise _bad(f"{policy.__name__} is a class: give an instance, {policy.__name__}()")
    select = getattr(policy, "select", None)
    if not callable(select):
        raise _bad(
            f"must be the name of a policy, or an object with a method select(request, candidates); "
            f"{type(policy).__name__} has none"
        )
    if inspect.iscoroutinefunction(select) or inspect.isasyncgenfunction(select):
        raise _bad(f"{type(policy).__name__}.select is asynchronous: make it a plain `def`")
    try:
        signature = inspect.signature(select)
    except (TypeError, ValueError):  # something built in, which does not tell
        return
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise _bad(
            f"{type(policy).__name__}.select{signature} takes no (request, candidates): {error}"
        ) from error


def _try_out(policy: Policy, deployments: list[Candidate]) -> None:
    """Asks once about an empty request, without statistics: what is no order is refused at once.

    An error is none of that: a policy may miss in the trial what real calls have. Nor is slowness.
    """
    outcome: list[object] = []

    def ask() -> None:
        # What it raises here, it raises in a call too, where the engine counts it.
        with suppress(BaseException):
            outcome.append(policy.select(PolicyRequest(_Call(), LlmRequest()), list(deployments)))

    thread = threading.Thread(target=ask, name="liter-llm-policy", daemon=True)
    thread.start()
    thread.join(_TRIAL)
    if not outcome:
        return
    try:
        names = names_in(outcome[0])
    except TypeError as error:
        raise _bad(f"{type(policy).__name__}: {error}") from error
    known = {deployment.name for deployment in deployments}
    for position, name in enumerate(names):
        if name not in known:
            raise _bad(f"{type(policy).__name__}: select() named `{name}`, which is no candidate")
        if name in names[:position]:
            raise _bad(f"{type(policy).__name__}: select() named `{name}` twice")
