"""`tunegate prompts`: prompt templates, looked through and tried before anybody is answered by them."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunegate.api.digest import short
from tunegate.api.errors import UsageError
from tunegate.cli.options import open_store, optional_store_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunegate.evaluation.cases import Outcome, Results
    from tunegate.models.tokens import Tokens
    from tunegate.prompts import Message, Template

format_option = click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="How to print it."
)


@click.group()
def command() -> None:
    """Check prompt templates, render them, and try them on a model."""


@command.command("list")
def list_() -> None:
    """List the templates that come with tunegate."""
    from tunegate.cli.options import print_table
    from tunegate.prompts import builtin_names, load_template

    templates = [load_template(name) for name in builtin_names()]
    rows = [(template.source, short(template.digest), template.head.description) for template in templates]
    print_table("Templates", ("name", "digest", "what it is for"), rows)


@command.command()
@click.argument("template")
def show(template: str) -> None:
    """Print the file of TEMPLATE, one that comes with tunegate, to begin one's own with."""
    from tunegate.prompts import builtin_names
    from tunegate.prompts.library import BUILTIN, SUFFIX

    if template not in builtin_names():
        raise UsageError(f"No template {template} comes with tunegate; there are: {', '.join(builtin_names())}.")
    click.echo((BUILTIN / f"{template}{SUFFIX}").read_text(encoding="utf-8"), nl=False)


@command.command()
@click.argument("templates", nargs=-1, required=True, metavar="TEMPLATES...")
@click.option("--ignore", multiple=True, metavar="RULE", help="A rule that does not matter here; again for more.")
@format_option
def lint(templates: tuple[str, ...], ignore: tuple[str, ...], form: str) -> None:
    """Say what is known to go wrong with TEMPLATES, files or names. The exit status is 1 where there is something."""
    import re

    from tunegate.api.codec import to_json
    from tunegate.api.errors import PromptError
    from tunegate.prompts import load_template
    from tunegate.prompts.lint import RULES
    from tunegate.prompts.lint import lint as find

    if unknown := [rule for rule in ignore if rule not in RULES]:
        raise UsageError(f"There is no rule {unknown[0]}; the rules are: {', '.join(RULES)}.")
    found = []
    for template in templates:
        try:
            findings = [(finding.line, finding.rule, finding.reason) for finding in find(load_template(template))]
        except PromptError as error:  # that it can't be read is a finding, too
            where = re.match(r".*?:(\d+): ", str(error))
            findings = [(int(where[1]) if where else 1, "unreadable", str(error))]
        found += [
            {"template": template, "line": line, "rule": rule, "reason": reason}
            for line, rule, reason in findings
            if rule not in ignore
        ]
    if form == "json":
        click.echo(to_json(found), nl=False)
    else:
        for finding in found:
            click.echo(f"{finding['template']}:{finding['line']}: {finding['rule']}: {finding['reason']}")
        click.echo(f"{len(templates)} templates, {len(found)} findings", err=True)
    if found:
        raise SystemExit(1)


@command.command()
@click.argument("template")
@click.option("--var", "pairs", multiple=True, metavar="NAME=VALUE", help="The value of a variable; again for more.")
@click.option(
    "--vars",
    "values_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="A YAML or JSON file with values; --var wins.",
)
@click.option("--tokenizer", metavar="FOLDER|VERSION", help="Count tokens by this model's tokenizer and chat template.")
@click.option("--against", metavar="TEMPLATE", help="Show what changed since this one, in text and in tokens.")
@click.option("--nonce", default="0000", show_default=True, help="The suffix of fences, which is random when served.")
@format_option
@optional_store_options
def render(
    template: str,
    pairs: tuple[str, ...],
    values_file: Path | None,
    tokenizer: str | None,
    against: str | None,
    nonce: str,
    form: str,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Print the exact messages of TEMPLATE, a file or the name of one that comes with tunegate."""
    import re

    from tunegate.api.codec import to_json
    from tunegate.prompts import load_template

    if not re.fullmatch("[0-9a-z]{4,32}", nonce):
        raise UsageError(f"The nonce {nonce!r} can't be used; write 4 to 32 lower-case letters and digits.")
    loaded = [load_template(name) for name in ([template, against] if against else [template])]
    tokens = _tokens(tokenizer, store_uri, endpoint_url)
    given = [_values(each, pairs, values_file) for each in loaded]
    results = [_render(each, values, nonce, tokens) for each, values in zip(loaded, given, strict=True)]
    new, old = results[0], results[-1]
    if form == "json" and against:
        compared = {**new, "against": old, "difference": _difference(new, old)}
        more = {"tokensDifference": new["tokens"] - old["tokens"]} if tokens else {}
        click.echo(to_json(compared | more), nl=False)
    elif form == "json":
        click.echo(to_json(new), nl=False)
    elif against:
        click.echo("\n".join(_difference(new, old)) or "The messages are the same.")
        if tokens:
            click.echo(f"\n{old['tokens']} -> {new['tokens']} tokens ({new['tokens'] - old['tokens']:+d})")
    else:
        click.echo(_as_text(new["messages"]))
        if tokens:
            click.echo(f"\n{new['tokens']} tokens")


def _render(template: Template, values: dict[str, Any], nonce: str, tokens: Tokens | None) -> dict[str, Any]:
    """The messages and what is known of them. Raises PromptError when they are longer than the template allows, too."""
    from tunegate.prompts import render as fill

    messages = fill(template, values, nonce=nonce, **_counting(tokens))
    result: dict[str, Any] = {"template": template.source, "digest": template.digest, "messages": messages}
    return result | {"tokens": _length(template, messages, tokens)} if tokens else result


def _length(template: Template, messages: Sequence[Message], tokens: Tokens) -> int:
    """The tokens of the messages. Raises PromptError when they are more than the template allows."""
    from tunegate.api.errors import PromptError

    length = tokens.count_prompt([(message.role, message.content) for message in messages])
    longest = template.head.limits.prompt_tokens
    if longest and length > longest:
        raise PromptError(
            f"{template.source} has {length} tokens with these values, and its limit prompt_tokens is {longest}; "
            "give less."
        )
    return length


def _values(template: Template, pairs: Sequence[str], values_file: Path | None) -> dict[str, Any]:
    """The values that are given for `template`: texts as they are, others read as YAML."""
    import yaml

    values: dict[str, Any] = {}
    if values_file:
        try:
            values = yaml.safe_load(values_file.read_bytes())
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(f"{values_file} is no YAML: {str(error).splitlines()[0]}; correct it.") from None
        if not isinstance(values, dict):
            raise UsageError(f"{values_file} holds no values by name; write lines such as query: TEXT.")
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"--var {pair} names no value; write it as NAME=VALUE.")
        variable = template.head.variables.get(name)
        try:
            values[name] = text if variable is None or variable.type == "text" else yaml.safe_load(text)
        except yaml.YAMLError:
            values[name] = text  # refused with its type, beside everything else that is wrong
    return values


def _as_text(messages: Sequence[Message]) -> str:
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in messages)


def _difference(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    before, after = (_as_text(result["messages"]).split("\n") for result in (old, new))
    was, now = (f"{result['template']} ({short(result['digest'])})" for result in (old, new))
    return list(difflib.unified_diff(before, after, was, now, lineterm=""))


@command.command("try")
@click.argument("case_files", nargs=-1, required=True, metavar="CASES...", type=click.Path(path_type=Path))
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Where a model answers as OpenAI's do.")
@click.option("--model", help="The model's name there; by default the first that is listed.")
@click.option("--tokenizer", metavar="FOLDER|VERSION", help="Count the tokens of examples by this model's tokenizer.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), help="Also write the results as JUnit XML.")
@format_option
@optional_store_options
def try_(
    case_files: tuple[Path, ...],
    url: str,
    model: str | None,
    tokenizer: str | None,
    junit: Path | None,
    form: str,
    store_uri: str | None,
    endpoint_url: str | None,
) -> None:
    """Ask a model what the files CASES hold, and check its answers. The exit status is 1 where one fails.

    A server that wants an API key gets the one in TUNEGATE_API_KEY.
    """
    import os
    import secrets
    from contextlib import closing

    from tunegate.api import environment
    from tunegate.api.errors import EvaluationError
    from tunegate.evaluation import cases
    from tunegate.evaluation.models.http import HttpModel
    from tunegate.files import disk_errors_as

    if junit and not junit.parent.is_dir():
        raise UsageError(f"The folder {junit.parent} does not exist; make it or choose another --junit.")
    tokens = _tokens(tokenizer, store_uri, endpoint_url)
    read = [(path, *cases.read_cases(path)) for path in case_files]
    counting = _counting(tokens)
    asked = [(path, made, cases.fill(made, found, secrets.token_hex(4), **counting)) for path, made, found in read]
    if tokens:
        for _, made, questions in asked:
            for question in questions:
                _length(made, question.messages, tokens)
    show = _print_outcome if form == "text" else lambda outcome: None
    with closing(HttpModel(url, model, os.environ.get(environment.API_KEY))) as answerer:
        results = [cases.run(str(path), made, questions, answerer, show) for path, made, questions in asked]
    if junit:
        with disk_errors_as(EvaluationError, junit, "the results are above."):
            junit.write_bytes(cases.to_junit(results))
    _finish(results, form)


def _finish(results: Sequence[Results], form: str) -> None:
    from tunegate.api.codec import to_json

    if form == "json":
        click.echo(to_json(results), nl=False)
    passed = [outcome.passed for result in results for outcome in result.outcomes]
    click.echo(f"{sum(passed)} of {len(passed)} cases passed", err=True)
    if not all(passed):
        raise SystemExit(1)


def _print_outcome(outcome: Outcome) -> None:
    click.echo(f"{'ok  ' if outcome.passed else 'FAIL'} {outcome.id} ({outcome.seconds:.1f} s)")
    for line in (outcome.error, *outcome.failures):
        if line:
            click.echo(f"     {line}")
    if outcome.failures:
        click.echo(f"     the answer: {outcome.answer}")


def _tokens(tokenizer: str | None, store_uri: str | None, endpoint_url: str | None) -> Tokens | None:
    if not tokenizer:
        return None
    from tunegate.models.tokens import Tokens

    needs_store = store_uri and not Path(tokenizer).is_dir()
    return Tokens.of(tokenizer, open_store(str(store_uri), endpoint_url) if needs_store else None)


def _counting(tokens: Tokens | None) -> dict[str, Any]:
    """What rendering takes of a tokenizer."""
    return {"count": tokens.count, "control_tokens": tokens.control} if tokens else {}
