"""What may be made from a configuration file, a client or a router, and follows it from then on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Self

from .errors import ConfigError, LiterLlmError

if TYPE_CHECKING:
    from .config_file import Loaded
    from .config_live import LiveConfig


class FromFile:
    """Reads a configuration file, and reads it again."""

    _file: LiveConfig | None = None

    @classmethod
    def from_config(cls, path: str | os.PathLike[str] | None = None, *, watch: bool = False) -> Self:
        """From a configuration file: over its one deployment, or over several by its `[router]`.

        Args:
            path: The TOML file; without one, the environment's `LITER_LLM_CONFIG` names it, else it is the
                first `liter-llm.toml` in the working folder and those above it.
            watch: Whether to reload when the file changes. A file that cannot work changes nothing: it is
                logged under `liter_llm` and told by `config_error`.

        Raises:
            ConfigError: There is no such file, or something in it cannot work; the message names file, line
            and key.
        """
        from .config_file import load

        return cls._over_file(load(path), watch=watch)

    @classmethod
    def _over_file(cls, loaded: Loaded, *, watch: bool) -> Self:
        raise NotImplementedError

    def _no_file(self) -> str:
        """Why there is nothing to reload, and what to do."""
        raise NotImplementedError

    def reload(self) -> None:
        """Reads the configuration file again, for the calls to come; those in flight end under the old one.

        Statistics, open circuits and used limits of deployments that stay the same are kept, and so is what
        was spent of budgets that stay the same. All clients of a router follow.

        Raises:
            LiterLlmError: The file cannot work, this was not made from one, or it is closed. Nothing has
            changed.
        """
        if self._file is None:
            raise ConfigError(self._no_file(), param="path")
        self._file.reload()

    @property
    def config_error(self) -> LiterLlmError | None:
        """Why the newest reload of the configuration file failed; `None` when it did not."""
        return None if self._file is None else self._file.error
