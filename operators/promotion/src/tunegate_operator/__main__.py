"""`python -m tunegate_operator`: the flags. What needs a cluster is imported when it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

import click
import msgspec

from tunegate.api import environment
from tunegate.api.errors import TunegateError
from tunegate_operator import __version__
from tunegate_operator.config import Config, ReleasePods

LEVELS = ("debug", "info", "warning", "error")


class Resources(click.ParamType[dict[str, Any]]):
    """Requests and limits, as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(value, type=dict[Literal["requests", "limits"], dict[str, str | int]])
            return {str(key): amounts for key, amounts in found.items()}
        except msgspec.DecodeError as error:
            self.fail(f'{value!r} is not such as {{"requests": {{"cpu": "1"}}}}: {error}', param, ctx)


class Pods(click.ParamType[ReleasePods]):
    """What pods get, as JSON in the words of the chart's values."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ReleasePods:
        try:
            return msgspec.json.decode(value, type=ReleasePods)
        except msgspec.DecodeError as error:
            self.fail(f'{value!r} is not such as {{"priorityClassName": "batch"}}: {error}', param, ctx)


class Keys(click.ParamType[dict[str, str]]):
    """Names by names, as JSON."""

    name = "json"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[str, str]:
        try:
            return msgspec.json.decode(value, type=dict[str, str])
        except msgspec.DecodeError as error:
            self.fail(f'{value!r} is not such as {{"AWS_ACCESS_KEY_ID": "id"}}: {error}', param, ctx)


RESOURCES, PODS, KEYS = Resources(), Pods(), Keys()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__)
@click.option("--store", required=True, envvar=environment.STORE, show_envvar=True, help="s3://bucket[/prefix]")
@click.option("--endpoint-url", envvar=environment.ENDPOINT_URL, show_envvar=True, help="Where the store's API is.")
@click.option("--region", envvar=environment.REGION, show_envvar=True, help="The region that requests are signed for.")
@click.option("--evaluation-image", required=True, help="The image of the pods that evaluate: the trainer image.")
@click.option(
    "--namespace", "namespaces", multiple=True, help="Where to look for policies; repeatable, none means all."
)
@click.option(
    "--gateway-namespace",
    "gateway_namespaces",
    multiple=True,
    help="Where to look for Gateways besides --namespace, to tell a policy's address; repeatable.",
)
@click.option("--store-secret", default="tunegate-store", help="The Secret that pods read the store's keys from.")
@click.option("--store-keys", type=KEYS, default="{}", help="JSON: what that Secret calls the variables, if otherwise.")
@click.option("--tools-secret", default="", help="A Secret with the variables of what agents ask, if any.")
@click.option("--queue-name", default="", help="The queue of Kueue for evaluations and servers with GPUs. Empty: none.")
@click.option("--feedback-secret", default="tunegate-feedback", help="The Secret with the key of response ids.")
@click.option("--serving-runtime", default="tunegate-predictor", help="The ClusterServingRuntime of the servers.")
@click.option("--vllm-runtime", default="tunegate-predictor-vllm", help="The one of servers with engine: VLLM.")
@click.option(
    "--serving-resources",
    type=RESOURCES,
    default="{}",
    help="JSON: requests and limits of servers whose policy has none.",
)
@click.option("--vllm-resources", type=RESOURCES, default="{}", help="The same for servers with engine: VLLM.")
@click.option("--grace-seconds", type=click.IntRange(10), default=60, help="How long a server's pod may take to end.")
@click.option("--evaluation-pods", type=PODS, default="{}", help="JSON: what the pods that evaluate get besides.")
@click.option("--serving-pods", type=PODS, default="{}", help="JSON: what the servers' pods get besides.")
@click.option(
    "--initializer-image",
    default=f"tunegate/storage-initializer:{__version__}",
    help="What brings a version to the pods of engine: LLMInferenceService.",
)
@click.option(
    "--engine-image",
    default=f"tunegate/predictor-vllm:{__version__}",
    help="The image of engines with serving.shareBase: the predictor with vLLM.",
)
@click.option("--initializer-pods", type=PODS, default="{}", help="JSON: what it gets besides.")
@click.option("--prometheus-url", help="Where users' verdicts are counted. Without it canaries wait for a person.")
@click.option(
    "--prometheus-credentials",
    type=click.Path(file_okay=False, path_type=Path),
    help="A folder with what Prometheus wants of us: token, or username and password; and ca.crt.",
)
@click.option(
    "--signing-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A PEM file with the key that signs decision records. Without it none are written.",
)
@click.option("--scan-seconds", type=click.FloatRange(1), default=30.0, help="How often the store is listed.")
@click.option("--lease-namespace", envvar="POD_NAMESPACE", show_envvar=True, help="Where replicas elect a leader.")
@click.option("--no-lease", is_flag=True, help="Act without an election. Only for a single replica.")
@click.option("--metrics-host", default="0.0.0.0", help="The address of /metrics, /healthz and /readyz.")  # noqa: S104
@click.option("--metrics-port", type=click.IntRange(0, 65535), default=8080)
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), default="info")
def command(*, no_lease: bool, **flags: Any) -> None:
    """Promote model versions that are good enough, and roll back those that users dislike.

    Talks to the cluster it runs in, or to the one that KUBECONFIG names. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY
    open the store.
    """
    from tunegate_operator.main import run

    if no_lease:
        flags["lease_namespace"] = None
    elif not flags["lease_namespace"]:
        raise click.UsageError("Give --lease-namespace, or --no-lease when there is only one replica.")
    run(Config(**flags))


def main() -> None:
    """Our own errors become one sentence and their exit status."""
    try:
        command(prog_name="tunegate-operator")
    except TunegateError as error:
        click.echo(f"tunegate-operator: {error}", err=True)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
