"""A configuration file in use: read again when asked, or whenever it changes."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING

from . import config_file
from ._native import Engine, EngineError
from .errors import LiterLlmError, from_engine

if TYPE_CHECKING:
    from .config_file import Loaded
    from .telemetry.observer import Observer

#: Seconds between two looks at a watched file.
LOOK_EVERY = 0.5
#: Seconds a file must have stayed as it is: one that is just being written is not read.
SETTLED_AFTER = 0.1

_log = logging.getLogger("liter_llm")


def over_file(loaded: Loaded, *, watch: bool) -> tuple[Engine, LiveConfig]:
    """An engine under a configuration file, and the file as what is in force.

    Raises:
        LiterLlmError: The file cannot work; the message names file and line.
    """
    try:
        engine = Engine(loaded.document_bytes)
    except EngineError as error:
        failure = loaded.placed(from_engine(error))
        raise failure from failure.__cause__
    live = LiveConfig(loaded, engine)
    if watch:
        live.watch()
    return engine, live


class LiveConfig:
    """A configuration file, the engine that works under it, and perhaps a thread that looks for changes.

    Attributes:
        loaded: What is in force.
        error: Why the newest reload failed; `None` when it did not.
        watched: Whether a thread looks for changes.
    """

    def __init__(self, loaded: Loaded, engine: Engine) -> None:
        self.loaded = loaded
        self.error: LiterLlmError | None = None
        self._engine = engine
        self._seen = loaded.stamp
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self.watched = False
        #: What observes calls under this file: told when another is in force.
        self.observers: weakref.WeakSet[Observer] = weakref.WeakSet()
        _live.add(self)

    def reload(self) -> None:
        """Reads the file and puts it in force for the calls to come; those in flight end under the old one.

        Raises:
            LiterLlmError: The file cannot work; the message names file and line. Nothing has changed.
        """
        with self._lock:
            try:
                loaded = config_file.again(self.loaded)
                try:
                    self._engine.reload(loaded.document_bytes)
                except EngineError as error:
                    failure = loaded.placed(from_engine(error))
                    raise failure from failure.__cause__
            except LiterLlmError as error:
                self.error = error
                raise
            self.loaded, self.error, self._seen = loaded, None, loaded.stamp
            for observer in list(self.observers):
                observer.reloaded(loaded)

    def watch(self) -> None:
        """Begins to look for changes, in a thread that ends with this object or `stop()`."""
        self.watched = True
        self._start()

    def _start(self) -> None:
        looking = threading.Thread(
            target=_look, args=(weakref.ref(self), self._stop), name="liter-llm config", daemon=True
        )
        looking.start()

    def stop(self) -> None:
        """Looks no more."""
        self.watched = False
        self._stop.set()

    def look(self) -> None:
        """Reloads when the file has changed and is not being written; a failure is logged once."""
        now = config_file.stamp_of(self.loaded.path)
        if now == self._seen or self._stop.wait(SETTLED_AFTER):
            return
        if config_file.stamp_of(self.loaded.path) != now:
            return
        self._seen = now
        try:
            self.reload()
        except LiterLlmError as error:
            if not self._stop.is_set():
                _log.error("the configuration stays as it was: %s", error)
        except Exception:  # noqa: BLE001 - the thread goes on looking, whatever this file did
            _log.exception("the configuration stays as it was: %s cannot be read", self.loaded.path)
        else:
            _log.info("the configuration was reloaded from %s", self.loaded.path)

    def forked(self) -> None:
        """In a forked child: the parent's thread is not there, and its locks may be held for ever."""
        self._lock = threading.Lock()
        self._stop = threading.Event()
        if self.watched:
            self._start()


def _look(reference: weakref.ref[LiveConfig], stop: threading.Event) -> None:
    while not stop.wait(LOOK_EVERY):
        live = reference()
        if live is None:
            return
        live.look()
        del live


_live: weakref.WeakSet[LiveConfig] = weakref.WeakSet()


def _forked() -> None:
    for live in list(_live):
        # A child that may start no thread goes on without.
        with suppress(RuntimeError):
            live.forked()


with suppress(AttributeError):  # Windows cannot fork
    os.register_at_fork(after_in_child=_forked)
