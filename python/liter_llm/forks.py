"""Forks while other threads import: a child must not inherit a module that nobody will ever finish.

Parts of the package are imported when they are first used, often inside a call. Python holds a lock for each
module that is being imported; a child forked meanwhile inherits the lock, but not the thread that would
release it, and its first import of that module waits for ever. So a process with several threads finishes
these imports before it forks.
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from importlib import import_module

#: What the package imports inside functions and methods. `concurrent.futures` is missing on purpose: imported
#: here, it would undo at this very fork what it has not done for it.
IMPORTED_LATER = (
    "difflib",
    "liter_llm.bridge",
    "liter_llm.config_file",
    "liter_llm.config_live",
    "liter_llm.exact",
    "liter_llm.host",
    "liter_llm.media",
    "liter_llm.provider",
    "liter_llm.requests",
    "liter_llm.route",
    "liter_llm.router",
    "liter_llm.structured",
    "liter_llm.tables",
    "liter_llm.telemetry.hooks",
    "liter_llm.telemetry.logs",
    "liter_llm.telemetry.names",
    "liter_llm.telemetry.observed",
    "liter_llm.telemetry.record",
    "liter_llm.tools",
    "liter_llm.types",
    "pickle",
    "selectors",
)
#: The same, but too slow or too rarely there to import them for a fork: only finished when begun.
FINISHED_WHEN_BEGUN = (
    "asyncio",
    "hashlib",
    "http.server",
    "liter_llm._pydantic",
    "liter_llm.prometheus",
    "liter_llm.telemetry.messages",
    "liter_llm.telemetry.meters",
    "liter_llm.telemetry.spans",
    "liter_llm.trio_run",
    "opentelemetry.propagate",
    "tempfile",
    "trio",
    "warnings",
    "zipfile",
)


def _finish_imports() -> None:
    if threading.active_count() == 1 or sys.is_finalizing():
        return
    for name in (*IMPORTED_LATER, *(name for name in FINISHED_WHEN_BEGUN if name in sys.modules)):
        # A fork must not fail for a module that the call will complain about anyway.
        with suppress(Exception):
            import_module(name)


def register() -> None:
    """Called once, when the package is imported."""
    with suppress(AttributeError):  # Windows cannot fork
        os.register_at_fork(before=_finish_imports)
