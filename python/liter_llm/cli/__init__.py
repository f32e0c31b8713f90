"""The command `liter-llm`: ask a model, look at providers, models and running programs, run the simulator."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from liter_llm import __version__
from liter_llm.errors import (
    ConfigError,
    InvalidArgumentError,
    LiterLlmError,
    MissingKeyError,
    UnsupportedError,
)

from .ask import ask
from .config import config
from .doctor import doctor
from .models import models
from .providers import providers
from .sim import sim
from .top import top

__all__ = ["main", "program"]

INTERRUPTED = 130
# What was refused before anything was sent: the caller can put it right without the provider.
_REFUSED = (ConfigError, InvalidArgumentError, MissingKeyError, UnsupportedError)


class Program(click.Group):
    """A group whose errors are one line on stderr, with the exit codes the help promises."""

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002 - click's own signature
        **extra: Any,
    ) -> Any:
        """Runs the command; ends the process unless `standalone_mode` is off."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(self._run(args, prog_name, complete_var, extra))

    def _run(
        self,
        args: Sequence[str] | None,
        prog_name: str | None,
        complete_var: str | None,
        extra: dict[str, Any],
    ) -> int:
        try:
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except (click.Abort, KeyboardInterrupt):
            return INTERRUPTED
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            return 2
        except click.UsageError as error:
            where = error.ctx.command_path if error.ctx is not None else "liter-llm"
            _say(f"{error.format_message().rstrip('.')}. See `{where} --help`.")
            return 2
        except click.ClickException as error:
            _say(error.format_message())
            return error.exit_code
        except LiterLlmError as error:
            _say(str(error))
            return 2 if isinstance(error, _REFUSED) else 1
        # Without standalone mode click returns the code given to `ctx.exit()`.
        return result if isinstance(result, int) else 0


def _say(message: str) -> None:
    click.echo(f"Error: {' '.join(message.split())}", err=True)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  liter-llm ask -m openai/gpt-4o-mini "Why is the sky blue?"
  git diff | liter-llm ask "Review this change"
  liter-llm doctor

\b
Exit codes:
  0    it worked
  1    the call failed, or doctor found a fault
  2    wrong usage or configuration; nothing was sent
  130  stopped with Ctrl-C
""",
)
@click.version_option(__version__, "--version", prog_name="liter-llm", message="%(prog)s %(version)s")
def program() -> None:
    """One command for every LLM service."""


for _command in (ask, providers, models, config, sim, doctor, top):
    program.add_command(_command)


def main() -> None:
    """Runs the command `liter-llm` with the arguments of this process, and ends it."""
    program.main(prog_name="liter-llm")
