"""The dashboard of tokens and spend: what calls cost, budgets, caches."""

from __future__ import annotations

from panels import (
    BY_DEPLOYMENT,
    BY_MODEL,
    BY_PROVIDER,
    CALL,
    DEP,
    DEPLOYMENT,
    DURATION,
    JOB,
    MODEL,
    PROV,
    REQUEST_MODEL,
    SPEND_PER_HOUR,
    TOKEN_USAGE,
    Panel,
    Query,
    Steps,
    quantile,
    rate,
    share,
)

BUDGET_STEPS: Steps = (("green", None), ("orange", 0.8), ("red", 1))
SPENT = f"liter_llm_budget_spent_usd{{{JOB}}}"
LIMIT = f"liter_llm_budget_limit_usd{{{JOB}}}"
CACHE = (rate("liter_llm_cache_hits_total", JOB), rate("liter_llm_cache_misses_total", JOB))

TOKEN_TYPES = "liter_llm_token_type"  # noqa: S105 - a label

COST: list[Panel] = [
    Panel(
        "Spend in the time shown",
        "US dollars in the range that is chosen on top.",
        "currencyUSD",
        [Query(f"sum(increase(liter_llm_spend_usd_total{{{CALL}}}[$__range]))")],
        "stat",
        6,
        5,
    ),
    Panel(
        "Spend an hour",
        "US dollars an hour at the present pace.",
        "currencyUSD",
        [Query(SPEND_PER_HOUR)],
        "stat",
        6,
        5,
    ),
    Panel(
        "Cost of a thousand calls",
        "US dollars, over calls that ended; failed ones are counted too.",
        "currencyUSD",
        [Query(f"1000 * {rate('liter_llm_spend_usd_total', CALL)} / {rate(f'{DURATION}_count', CALL)}")],
        "stat",
        6,
        5,
    ),
    Panel(
        "Answers from the cache",
        "The share of cacheable calls that the response cache answered.",
        "percentunit",
        [Query(share(CACHE[0], f"({CACHE[0]} + {CACHE[1]})"))],
        "stat",
        6,
        5,
    ),
    Panel(
        "Budgets used",
        "What is spent of each budget; of several processes the fullest.",
        "percentunit",
        [
            Query(
                f"max by (liter_llm_budget) ({SPENT} / {LIMIT})",
                "{{liter_llm_budget}}",
            )
        ],
        "bargauge",
        steps=BUDGET_STEPS,
        limits=(0, 1),
    ),
    Panel(
        "Budgets: spent and limit",
        "US dollars of the present window.",
        "currencyUSD",
        [
            Query(
                f"max by (liter_llm_budget) ({SPENT})",
                "{{liter_llm_budget}} spent",
            ),
            Query(
                f"max by (liter_llm_budget) ({LIMIT})",
                "{{liter_llm_budget}} limit",
            ),
        ],
    ),
    Panel(
        "Spend an hour by model",
        "US dollars an hour at the present pace.",
        "currencyUSD",
        [Query(f"3600 * {rate('liter_llm_spend_usd_total', CALL, REQUEST_MODEL)}", BY_MODEL)],
        stacked=True,
    ),
    Panel(
        "Spend an hour by provider",
        "US dollars an hour at the present pace.",
        "currencyUSD",
        [Query(f"3600 * {rate('liter_llm_spend_usd_total', CALL, PROV)}", BY_PROVIDER)],
        stacked=True,
    ),
    Panel(
        "Tokens a second by model",
        "Input and output tokens.",
        "none",
        [
            Query(
                rate(
                    "liter_llm_tokens_total",
                    f'{JOB}, {DEPLOYMENT}, {MODEL}, {TOKEN_TYPES}=~"input|output"',
                    f"{REQUEST_MODEL}, {TOKEN_TYPES}",
                ),
                f"{BY_MODEL} {{{{{TOKEN_TYPES}}}}}",
            )
        ],
    ),
    Panel(
        "Tokens of a call, median",
        "Half of the calls use fewer.",
        "none",
        [
            Query(
                quantile(0.5, TOKEN_USAGE, CALL, f"{REQUEST_MODEL}, gen_ai_token_type"),
                f"{BY_MODEL} {{{{gen_ai_token_type}}}}",
            )
        ],
    ),
    Panel(
        "Input read from the provider's cache",
        "The share of input tokens that the provider had in its prompt cache, which it bills at less.",
        "percentunit",
        [
            Query(
                share(
                    rate(
                        "liter_llm_tokens_total",
                        f'{JOB}, {DEPLOYMENT}, {MODEL}, {TOKEN_TYPES}="cache_read"',
                        DEP,
                    ),
                    rate(
                        "liter_llm_tokens_total", f'{JOB}, {DEPLOYMENT}, {MODEL}, {TOKEN_TYPES}="input"', DEP
                    ),
                ),
                BY_DEPLOYMENT,
            )
        ],
        limits=(0, 1),
    ),
    Panel(
        "Response cache",
        "Calls a second that the response cache answered, and that it could have answered but did not.",
        "reqps",
        [Query(CACHE[0], "hits"), Query(CACHE[1], "misses")],
    ),
]
