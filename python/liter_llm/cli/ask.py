"""`liter-llm ask`: one question, the answer to stdout as it comes."""

from __future__ import annotations

import io
import os
import stat
import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from liter_llm import media
from liter_llm.client import LiterLLM
from liter_llm.content import AudioBlock, ContentBlock, DocumentBlock, ImageBlock, RefusalBlock
from liter_llm.errors import InvalidArgumentError
from liter_llm.requests import RequestFields
from liter_llm.schemas import strict
from liter_llm.types import LlmResponse

from .deployment import changed, choose, client_for

_BLOCKS: dict[str, type[ImageBlock | DocumentBlock | AudioBlock]] = {
    "image": ImageBlock,
    "audio": AudioBlock,
    "document": DocumentBlock,
}
_READABLE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command(
    epilog="""\b
Examples:
  liter-llm ask -m anthropic/claude-sonnet-4-5 "Explain backpressure in two sentences"
  git diff | liter-llm ask "Write a commit message for this change"
  liter-llm ask -a invoice.pdf -a photo.jpg "Do these two belong together?"
  liter-llm ask --schema person.json "Ada Lovelace, born 1815" | jq .name
"""
)
@click.argument("prompt", required=False)
@click.option(
    "-m",
    "--model",
    metavar="PROVIDER/MODEL",
    help="The model. Default: LITER_LLM_MODEL, else the deployment of liter-llm.toml.",
)
@click.option(
    "-a",
    "--attach",
    metavar="FILE",
    type=_READABLE,
    multiple=True,
    help="Send a picture, document, sound or text file along; may be given several times.",
)
@click.option("-s", "--system", metavar="TEXT", help="Instructions above the question.")
@click.option("--max-tokens", type=click.IntRange(min=1), help="The most tokens to generate.")
@click.option("--temperature", type=click.FloatRange(min=0), help="Sampling temperature.")
@click.option(
    "--schema",
    metavar="FILE",
    type=_READABLE,
    help="A JSON Schema the answer must fit; it is printed as JSON.",
)
@click.option("--json", "whole", is_flag=True, help="Print the whole response (usage, ids, ...) as JSON.")
@click.option("--no-stream", is_flag=True, help="Wait for the whole answer before printing.")
@click.option(
    "--timeout", type=_SECONDS, metavar="SECONDS", help="The limit for the whole call. Default: 600."
)
@click.option("--base-url", metavar="URL", help="Where the API is, for instance a proxy or the simulator.")
@click.option("--api", type=click.Choice(["chat", "responses"]), help="The API to use, where there are two.")
def ask(
    *,
    prompt: str | None,
    model: str | None,
    attach: tuple[Path, ...],
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    schema: Path | None,
    whole: bool,
    no_stream: bool,
    timeout: float | None,
    base_url: str | None,
    api: Literal["chat", "responses"] | None,
) -> None:
    """Ask a model and print its answer as it comes.

    What is piped in is put below PROMPT, or is the prompt when there is none (or it is `-`).
    """
    document = changed(choose(model), {"base_url": base_url, "api": api})
    fields: RequestFields = {
        "system": system,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "timeout": timeout,
        "response_format": None if schema is None else _response_format(schema),
    }
    parts: list[str | ContentBlock] = [_attachment(path) for path in attach]
    if text := _question(prompt):
        parts.append(text)
    if not parts:
        raise click.UsageError("No question: give PROMPT, or pipe one in.")
    # An answer may hold characters the terminal's encoding has not.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportUnknownMemberType]
    with client_for(document) as client:
        response = _answer(client, parts, fields, streaming=not (whole or no_stream))
    if whole:
        click.echo(msgspec.json.format(msgspec.json.encode(response), indent=2))
    elif no_stream and response.text:
        click.echo(response.text)
    _judge(response, as_json=schema is not None)


def _answer(
    client: LiterLLM, parts: list[str | ContentBlock], fields: RequestFields, *, streaming: bool
) -> LlmResponse:
    if not streaming:
        return client.generate(parts, **fields)
    last = ""
    try:
        with client.stream(parts, **fields) as stream:
            refusing = False
            for chunk in stream:
                if chunk.start is not None:
                    refusing = isinstance(chunk.start, RefusalBlock)
                # A refusal is told on stderr when it is whole.
                if chunk.text and not refusing:
                    click.echo(chunk.text, nl=False)
                    last = chunk.text
            return stream.response
    except BrokenPipeError:
        last = ""
        raise
    finally:
        # Whatever follows, an error or the shell's prompt, begins on a line of its own.
        if last and not last.endswith("\n"):
            click.echo()


def _judge(response: LlmResponse, *, as_json: bool) -> None:
    """Says on stderr what the text alone does not tell.

    Raises:
        ClickException: There is no answer, or not in the form that was asked for.
    """
    if response.refusal:
        raise click.ClickException(f"the model declined: {response.refusal}")
    if response.finish_reason == "content_filter":
        raise click.ClickException("the provider's content filter stopped the answer")
    if as_json:
        try:
            msgspec.json.decode(response.text)
        except msgspec.DecodeError as error:
            why = "it was cut at the token limit" if response.finish_reason == "length" else str(error)
            raise click.ClickException(f"the answer is not JSON: {why}") from error
    elif response.finish_reason == "length":
        click.echo("Note: the answer was cut at the token limit.", err=True)


def _question(prompt: str | None) -> str:
    """The argument and what was piped in, a blank line between them."""
    given = "" if prompt is None or prompt == "-" else prompt
    piped = _piped(required=not given)
    return "\n\n".join(part for part in (given, piped) if part.strip())


def _piped(*, required: bool) -> str:
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():  # pyright: ignore[reportUnnecessaryComparison]
        return ""
    if not required and not _is_piped():
        return ""
    try:
        return sys.stdin.buffer.read().decode().rstrip("\n")
    except UnicodeDecodeError as error:
        raise click.UsageError("What is piped in is not UTF-8 text; send files with --attach.") from error


def _is_piped() -> bool:
    """Whether stdin is a pipe or file: a service's idle terminal or socket would never end."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return True
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _attachment(path: Path) -> ContentBlock:
    media_type = media.detect(media.load(path), path.name)
    if media_type is None:
        raise InvalidArgumentError(
            f"`--attach`: {str(path)!r} is neither text nor a known kind of picture, document or sound",
            param="attach",
        )
    return _BLOCKS[media.kind_of(media_type)].from_path(path)


def _response_format(path: Path) -> dict[str, Any]:
    """The schema file in the form of the request field; one written for OpenAI's API stays as it is."""
    try:
        schema: object = msgspec.json.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgumentError(
            f"`--schema`: {str(path)!r} is not JSON: {error}", param="schema"
        ) from error
    if not isinstance(schema, dict):
        raise InvalidArgumentError(f"`--schema`: {str(path)!r} is not a JSON object", param="schema")
    known: dict[str, Any] = {str(key): value for key, value in schema.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if known.get("type") == "json_schema" and "json_schema" in known:
        return known
    name = "".join(
        c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in str(known.get("title") or path.stem)
    )
    wanted: dict[str, Any] = {"name": name[:64] or "answer", "schema": known}
    # Strict only when the file is so already: making optional properties required would change its meaning.
    if strict(known) == known:
        wanted["strict"] = True
    return {"type": "json_schema", "json_schema": wanted}
