"""How fast versions are published and fetched, against `aws s3 cp` and against the limit of the machine.

All three move the same files to and from one fresh embedded store, in turns, and the median of the rounds counts:

  tunegate   Store.publish and Store.fetch: sha256 of every byte, manifest, files put in place in one step
  aws        `aws s3 cp --recursive` both ways, as installed (no sha256)
  limit      curl --parallel with presigned URLs, and sha256sum of the same files

    python benchmarks/store.py --aws /path/to/venv/bin/aws

Without --aws it is looked for on PATH and left out when missing; a venv of its own keeps its pinned botocore away
from ours: python -m venv /tmp/aws && /tmp/aws/bin/pip install awscli
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import click

from tunegate.api.versions import Producer, Release
from tunegate.cli.options import print_table
from tunegate.store import EmbeddedStore, Store

Move = Callable[[Path, str], None]


@click.command(help=__doc__.split("\n")[0])
@click.option("--files", default=4, show_default=True, help="How many files.")
@click.option("--mib", default=256, show_default=True, help="MiB in each file.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--aws", help="The aws program; looked for on PATH by default.")
@click.option("--json", "as_json", is_flag=True)
def main(files: int, mib: int, rounds: int, aws: str | None, as_json: bool) -> None:
    aws = aws or shutil.which("aws")
    if aws is None:
        click.echo("aws is not installed, so it is left out; see --help of this file's first lines.", err=True)
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch, "store")) as running:
        os.environ.update(running.environment)
        arms = _arms(Store.open(running.uri, endpoint_url=running.endpoint_url), aws)
        seconds = _measure(arms, Path(scratch), files, mib, rounds)
    _report(seconds, files * mib, as_json)


def _arms(store: Store, aws: str | None) -> dict[str, tuple[Move, Move]]:
    """For each contender: how it sends a folder, and how it gets it back."""
    release, producer = Release(format="huggingface"), Producer(kind="benchmark")

    def publish(folder: Path, label: str) -> None:
        store.publish(folder, f"{label}/run/checkpoint-0", release=release, producer=producer)

    def fetch(folder: Path, label: str) -> None:
        store.fetch(f"{label}/run/checkpoint-0", folder)

    arms: dict[str, tuple[Move, Move]] = {"tunegate": (publish, fetch), "limit": _limit(boto3.client("s3"))}
    if aws:
        copy = [aws, "s3", "cp", "--recursive", "--only-show-errors"]
        arms["aws"] = (
            lambda folder, label: _run([*copy, str(folder), f"{store.uri}/raw-{label}/"]),
            lambda folder, label: _run([*copy, f"{store.uri}/raw-{label}/", str(folder)]),
        )
    return arms


def _limit(client: Any) -> tuple[Move, Move]:
    def sign(method: str, key: str) -> str:
        return str(client.generate_presigned_url(method, Params={"Bucket": "tunegate", "Key": key}))

    def send(folder: Path, label: str) -> None:
        paths = sorted(folder.iterdir())
        _sha256sum(paths)
        _curl([("upload-file", path, sign("put_object", f"raw-{label}/{path.name}")) for path in paths])

    def get(folder: Path, label: str) -> None:
        folder.mkdir()
        listing = client.list_objects_v2(Bucket="tunegate", Prefix=f"raw-{label}/")
        keys = [item["Key"] for item in listing["Contents"]]
        _curl([("output", folder / key.rpartition("/")[2], sign("get_object", key)) for key in keys])
        _sha256sum(sorted(folder.iterdir()))

    return send, get


def _curl(transfers: list[tuple[str, Path, str]]) -> None:
    config = "\nnext\n".join(f'url = "{url}"\n{option} = "{path}"\nfail\nsilent' for option, path, url in transfers)
    _run(["curl", "--no-progress-meter", "--parallel", "--parallel-immediate", "--config", "-"], config)


def _sha256sum(paths: list[Path]) -> None:
    _run(["xargs", "-0", "-n1", f"-P{os.cpu_count()}", "sha256sum"], "\0".join(map(str, paths)))


def _run(argv: list[str], text: str = "") -> None:
    subprocess.run(argv, input=text, text=True, check=True, stdout=subprocess.DEVNULL)


def _measure(
    arms: dict[str, tuple[Move, Move]], scratch: Path, files: int, mib: int, rounds: int
) -> dict[str, dict[str, list[float]]]:
    source = scratch / "model"
    source.mkdir()
    for number in range(files):
        with (source / f"model-{number:05}.safetensors").open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(1 << 20))
    seconds: dict[str, dict[str, list[float]]] = {name: {"publish": [], "fetch": []} for name in arms}
    for round_ in range(rounds):
        for name, (send, get) in arms.items():
            label, target = f"{name}-{round_}", scratch / "fetched"
            seconds[name]["publish"].append(_time(send, source, label))
            seconds[name]["fetch"].append(_time(get, target, label))
            shutil.rmtree(target)
    return seconds


def _time(move: Move, folder: Path, label: str) -> float:
    os.sync()  # what the one before left to write is not this one's to wait for
    start = time.perf_counter()
    move(folder, label)
    return time.perf_counter() - start


def _report(seconds: dict[str, dict[str, list[float]]], mib: int, as_json: bool) -> None:
    median = {name: {way: statistics.median(all_) for way, all_ in ways.items()} for name, ways in seconds.items()}
    ratios = {
        f"{way} against {name}": ways[way] / median["tunegate"][way]
        for name, ways in median.items()
        if name != "tunegate"
        for way in ("publish", "fetch")
    }
    if as_json:
        click.echo(json.dumps({"mib": mib, "seconds": seconds, "median": median, "ratios": ratios}, indent=2))
        return
    rows = [
        (name, way, f"{ways[way]:.2f}", f"{mib / ways[way]:.0f}", " ".join(f"{s:.2f}" for s in seconds[name][way]))
        for way in ("publish", "fetch")
        for name, ways in median.items()
    ]
    print_table(f"{mib} MiB", ("Who", "What", "Seconds", "MiB/s", "Rounds"), rows)
    print_table("tunegate's speed", ("", "Ratio"), [(name, f"{ratio:.2f}") for name, ratio in ratios.items()])


if __name__ == "__main__":
    main()
