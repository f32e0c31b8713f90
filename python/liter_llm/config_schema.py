"""The JSON Schema of `liter-llm.toml`, made from types; the engine's lists are held against it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ._native import config_options
from .config_file import DURATIONS

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"

Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Limit = Annotated[int, Meta(ge=1)]
Text = Annotated[str, Meta(min_length=1)]
Share = Annotated[float, Meta(gt=0, le=1)]
Factor = Annotated[float, Meta(ge=1, le=1000)]


class _Table(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A table whose keys are options."""


class Circuit(_Table):
    """When a deployment's circuit opens and how it closes again."""

    failures: Annotated[int, Meta(ge=1, description="Failures in a row that open it; 5.")] = 5
    open_time: Annotated[float, Meta(gt=0, le=1e9, description="Seconds it stays open; 30.")] = 30.0
    probes: Annotated[int, Meta(ge=1, description="Calls at once that may try the deployment; 1.")] = 1


class Hedge(_Table):
    """A second request for a call that is slow to begin its answer."""

    after: Annotated[
        Seconds | UnsetType, Meta(description="Seconds without a first byte; the recent 95th percentile.")
    ] = UNSET
    budget: Annotated[Share, Meta(description="The share of calls that may be hedged; 0.05.")] = 0.05


class Cache(_Table):
    """Exact-match answers kept in memory."""

    max_bytes: Annotated[int, Meta(ge=1, description="The most bytes kept; 64 MiB.")] = 64 * 1024 * 1024
    ttl: Annotated[float, Meta(gt=0, le=1e9, description="Seconds an answer is kept; 300.")] = 300.0


class Price(_Table):
    """What a deployment charges, in US dollars for a million tokens."""

    input: Annotated[float, Meta(ge=0, description="Input.")]
    output: Annotated[float, Meta(ge=0, description="Output, reasoning included.")]
    cache_read: Annotated[float | UnsetType, Meta(description="Input read from the provider's cache.")] = (
        UNSET
    )
    cache_write: Annotated[float | UnsetType, Meta(description="Input written to that cache.")] = UNSET


class Budget(_Table):
    """How much calls may cost."""

    usd: Annotated[float, Meta(gt=0, description="How much may be spent in a window, in US dollars.")]
    per: Annotated[Literal["hour", "day", "month"], Meta(description="The window.")]
    scope: Annotated[Text | UnsetType, Meta(description="router, tag:<tag>, key or key:<label>.")] = UNSET
    degrade_to: Annotated[Text | UnsetType, Meta(description="Where calls go from `degrade_at` on.")] = UNSET
    degrade_at: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | UnsetType, Meta(description="The share of the limit.")
    ] = UNSET
    hard: Annotated[bool, Meta(description="Whether calls are refused at the limit; true.")] = True
    path: Annotated[Text | UnsetType, Meta(description="The SQLite file that keeps what was spent.")] = UNSET


class Guard(_Table):
    """When a canary is rolled back."""

    error_rate: Annotated[bool, Meta(description="Whether failures are compared; true.")] = True
    latency: Annotated[
        Factor | bool, Meta(description="So many times slower is too slow; 2. false: not compared.")
    ] = 2.0
    cost: Annotated[
        Factor | bool, Meta(description="So many times as dear is too dear; 2. false: not compared.")
    ] = 2.0
    window: Annotated[Seconds, Meta(description="Seconds a comparison lasts; 3600.")] = 3600.0
    min_calls: Annotated[int, Meta(ge=1, description="Calls of each side before a decision; 10.")] = 10
    alpha: Annotated[
        float,
        Meta(gt=0, le=0.5, description="The chance that one as good as the others is rolled back; 0.05."),
    ] = 0.05


class Canary(_Table):
    """A deployment that gets a share of the calls, and none any more once it is worse than the others."""

    model: Annotated[str, Meta(min_length=1, description="The deployment: name, model or `provider/model`.")]
    percent: Annotated[float, Meta(ge=0, le=100, description="The share of the calls it gets.")]
    guard: Annotated[bool | Guard, Meta(description="When it is rolled back; true. false: never.")] = True


class Mirror(_Table):
    """A deployment that gets copies of calls; nobody waits for its answers."""

    to: Annotated[str, Meta(min_length=1, description="The deployment: name, model or `provider/model`.")]
    percent: Annotated[float, Meta(ge=0, le=100, description="The share of the calls that are copied.")]


class Deployment(_Table):
    """Where calls go and how."""

    provider: Annotated[str, Meta(min_length=1, description="The provider, or `provider/model`.")]
    model: Annotated[Text | UnsetType, Meta(description="The model, sent verbatim.")] = UNSET
    api_key: Annotated[Text | UnsetType, Meta(description="The key, best as `${VARIABLE}`.")] = UNSET
    base_url: Annotated[Text | UnsetType, Meta(description="Where the API is.")] = UNSET
    api: Annotated[Literal["chat", "responses"] | UnsetType, Meta(description="The API; chat.")] = UNSET
    transport: Annotated[
        Literal["http", "websocket"] | UnsetType, Meta(description="How bytes travel; http.")
    ] = UNSET
    deployment: Annotated[Text | UnsetType, Meta(description="Azure: the deployment; the model.")] = UNSET
    api_version: Annotated[Text | UnsetType, Meta(description="Azure: the API's version.")] = UNSET
    azure_ad_token: Annotated[Text | UnsetType, Meta(description="Azure: a Microsoft Entra token.")] = UNSET
    tenant_id: Annotated[Text | UnsetType, Meta(description="Azure: the tenant.")] = UNSET
    client_id: Annotated[Text | UnsetType, Meta(description="Azure: application or identity.")] = UNSET
    client_secret: Annotated[Text | UnsetType, Meta(description="Azure: the application's secret.")] = UNSET
    federated_token_file: Annotated[Text | UnsetType, Meta(description="Azure: workload identity.")] = UNSET
    managed_identity: Annotated[bool, Meta(description="Azure: use the machine's identity.")] = False
    organization: Annotated[Text | UnsetType, Meta(description="OpenAI: who is billed.")] = UNSET
    project: Annotated[Text | UnsetType, Meta(description="OpenAI: the project billed.")] = UNSET
    region: Annotated[Text | UnsetType, Meta(description="The region, for routing.")] = UNSET
    weight: Annotated[float, Meta(ge=0, description="The share under the policy `weighted`; 1.")] = 1.0
    priority: Annotated[int, Meta(ge=0, description="The rank under `priority`, lower first; 0.")] = 0
    tags: Annotated[list[str], Meta(description="Words of your own for routing.")] = []
    supports: Annotated[dict[str, bool], Meta(description="What it can do, where that differs.")] = {}
    context: Annotated[Limit | UnsetType, Meta(description="The most tokens, input and output.")] = UNSET
    price: Annotated[Price | UnsetType, Meta(description="What it charges, where that differs.")] = UNSET
    timeout: Annotated[Seconds, Meta(description="Seconds for the whole call; 600.")] = 600.0
    connect_timeout: Annotated[Seconds, Meta(description="Seconds to make a connection; 10.")] = 10.0
    first_byte_timeout: Annotated[Seconds, Meta(description="Seconds to the first byte; 120.")] = 120.0
    idle_timeout: Annotated[Seconds, Meta(description="Seconds of silence within an answer; 60.")] = 60.0
    max_retries: Annotated[int, Meta(ge=0, le=100, description="Repeats after a failure; 3.")] = 3
    resend_after_send: Annotated[
        bool, Meta(description="Whether to send again when the connection broke before an answer; true.")
    ] = True
    circuit: Annotated[bool | Circuit, Meta(description="The circuit breaker; on.")] = True
    concurrency: Annotated[Limit | UnsetType, Meta(description="The most calls in flight.")] = UNSET
    rpm: Annotated[Limit | UnsetType, Meta(description="The most requests a minute.")] = UNSET
    tpm: Annotated[Limit | UnsetType, Meta(description="The most tokens a minute.")] = UNSET
    hedge: Annotated[bool | Hedge, Meta(description="Hedged requests; off.")] = False
    cache: Annotated[bool | Cache, Meta(description="The response cache; off.")] = False
    headers: Annotated[dict[str, str], Meta(description="More HTTP headers.")] = {}
    extra: Annotated[dict[str, Any], Meta(description="Vendor fields for every request.")] = {}
    proxy: Annotated[Text | UnsetType, Meta(description="The proxy's URL, or `direct`.")] = UNSET
    name: Annotated[Text | UnsetType, Meta(description="Its name; `provider/model`.")] = UNSET


class Router(_Table):
    """How a router picks among the deployments."""

    policy: Annotated[str, Meta(description="How deployments are put in order; priority.")] = "priority"
    regions: Annotated[list[str], Meta(description="The regions calls may go to; all.")] = []
    require_tags: Annotated[list[str], Meta(description="Tags a deployment must all have.")] = []
    forbid_tags: Annotated[list[str], Meta(description="Tags a deployment must not have.")] = []
    content_filter_fallback: Annotated[
        bool, Meta(description="Whether a filtered call goes to another deployment; false.")
    ] = False
    timeout: Annotated[Seconds, Meta(description="Seconds for the whole call; 600.")] = 600.0
    max_retries: Annotated[int, Meta(ge=0, description="Repeats at deployments already tried; 3.")] = 3
    budget: Annotated[Budget | list[Budget], Meta(description="How much calls may cost; no limit.")] = []
    canary: Annotated[
        Canary | UnsetType, Meta(description="A deployment that gets a share of the calls, on trial.")
    ] = UNSET
    mirror: Annotated[Mirror | UnsetType, Meta(description="A deployment that gets copies of calls.")] = UNSET


class AuthHeader(_Table):
    """The bare key in this header."""

    header: Text


class Quirks(_Table):
    """How the host departs from its wire format."""


class Provider(_Table):
    """A provider row of your own, as in the table of known ones."""

    adapter: Annotated[str, Meta(min_length=1, description="The wire format, for instance openai_chat.")]
    apis: Annotated[dict[str, str], Meta(description="Further APIs and their wire formats.")] = {}
    base_url: Annotated[Text | UnsetType, Meta(description="Where requests go.")] = UNSET
    base_url_env: Annotated[list[str], Meta(description="Variables that name another base URL.")] = []
    api_key_env: Annotated[list[str], Meta(description="Variables that hold the key.")] = []
    auth: Annotated[
        Literal["bearer", "none", "optional"] | AuthHeader, Meta(description="How the key is sent.")
    ] = "bearer"
    entra: Annotated[bool, Meta(description="Whether it takes Microsoft Entra tokens.")] = False
    paths: Annotated[Literal["plain", "azure"], Meta(description="How its URLs are made.")] = "plain"
    headers: Annotated[dict[str, str], Meta(description="Headers for every request.")] = {}
    telemetry_name: Annotated[str, Meta(description="Its name in telemetry; its own.")] = ""
    quirks: Annotated[Quirks, Meta(description="How it departs from its wire format.")] = msgspec.field(
        default_factory=Quirks
    )
    docs: Annotated[str, Meta(description="The page that documents its API.")] = ""
    description: Annotated[str, Meta(description="Its name for people.")] = ""


class Telemetry(_Table):
    """What the host's OpenTelemetry is given of calls."""

    enabled: Annotated[bool, Meta(description="Whether spans and metrics are made; true.")] = True
    content: Annotated[
        bool | UnsetType, Meta(description="Whether prompts and answers are recorded; false.")
    ] = UNSET
    max_content_bytes: Annotated[
        int, Meta(ge=0, lt=1 << 32, description="The most bytes of each such attribute; 8192.")
    ] = 8192
    propagate_trace: Annotated[
        bool, Meta(description="Whether the provider gets `traceparent` and `tracestate`; false.")
    ] = False


class Document(_Table):
    """Configuration of Liter-LLM: one `[deployment]`, or several `[[deployments]]` and a router over them."""

    deployment: Deployment | UnsetType = UNSET
    deployments: list[Deployment] = []
    router: Router | UnsetType = UNSET
    cache: Annotated[bool | Cache, Meta(description="The router's response cache; off.")] = False
    providers: Annotated[dict[str, Provider], Meta(description="Provider rows of your own, by name.")] = {}
    catalog: Annotated[Text | UnsetType, Meta(description="Models and prices of your own: a file.")] = UNSET
    telemetry: Annotated[Telemetry | UnsetType, Meta(description="Traces and metrics.")] = UNSET


#: The tables by the names the engine's lists have.
TABLES: dict[str, type[msgspec.Struct]] = {
    "": Document,
    "deployment": Deployment,
    "circuit": Circuit,
    "hedge": Hedge,
    "cache": Cache,
    "price": Price,
    "router": Router,
    "budget": Budget,
    "canary": Canary,
    "guard": Guard,
    "mirror": Mirror,
    "providers": Provider,
    "telemetry": Telemetry,
}


def engine_options() -> dict[str, list[str]]:
    """The options the engine knows, by table; and what `supports` and `policy` take."""
    return msgspec.json.decode(config_options(), type=dict[str, list[str]])


def schema() -> dict[str, Any]:
    """The schema, as a JSON document."""
    (_, definitions) = msgspec.json.schema_components([Document], ref_template="#/$defs/{name}")
    known = engine_options()
    for definition in definitions.values():
        options: dict[str, Any] = definition.get("properties", {})
        definition["properties"] = {
            spelling: _trimmed(option) for name, option in options.items() for spelling in _spellings(name)
        }
    definitions["Router"]["properties"]["policy"]["enum"] = known["policies"]
    definitions["Deployment"]["properties"]["supports"]["propertyNames"] = {"enum": known["needs"]}
    definitions["Quirks"]["properties"] = {name: {} for name in known["quirks"]}
    document = definitions.pop("Document")
    document["oneOf"] = [{"required": ["deployment"]}, {"required": ["deployments"]}]
    document["properties"]["deployments"]["minItems"] = 1
    return {"$schema": SCHEMA_ID, **document, "$defs": definitions}


def _spellings(name: str) -> tuple[str, ...]:
    """Durations carry their unit in files; without it they are read as well."""
    return (f"{name}_seconds", name) if name in DURATIONS else (name,)


def _trimmed(option: dict[str, Any]) -> dict[str, Any]:
    """Without defaults that are no more than "nothing given"."""
    return {key: value for key, value in option.items() if not (key == "default" and value in ([], {}, ""))}
