"""What the log of votes takes: votes a minute through a predictor's route, and a tally over many of them.

    python benchmarks/feedback.py            # one store (SeaweedFS) and one server on this machine

"votes": clients post to a real server's `/v1/feedback`, each over a connection of its own, as fast as it answers; each
vote is in the store before it is answered. "tally": that many votes lie in segments, as servers write them; a process
that has read none of them lists, reads and counts them, then counts again when one more has come. Memory is the growth
of the process.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import uvicorn

from tunegate.api.feedback import Feedback, FeedbackRecord, Verdict, step_tag
from tunegate.feedback import FeedbackLog, ResponseIds, VoteWriter
from tunegate.processes import free_port
from tunegate.serving.metrics import Metrics
from tunegate.serving.routes.feedback import FeedbackRoute
from tunegate.store import EmbeddedStore, Store

DIGEST = "sha256:" + "ab" * 32
IDS = ResponseIds(bytes(32), "shop")
START = datetime(2026, 1, 1, tzinfo=UTC)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--votes", type=int, default=10_000)
    parser.add_argument("--tally", type=int, default=1_000_000)
    parser.add_argument("--count", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count(given.count, given.tally)
        return
    with tempfile.TemporaryDirectory() as folder, EmbeddedStore.start(Path(folder)) as running:
        store = Store.open(f"{running.uri}/votes", endpoint_url=running.endpoint_url, **running.keys)
        asyncio.run(post(store, given.clients, given.votes))
        seconds, segments = fill(store, given.tally)
        print(f"{given.tally:,} votes written in {segments} segments in {seconds:.0f} s")
        argv = [sys.executable, __file__, "--count", store.uri, "--tally", str(given.tally)]
        subprocess.run(argv, env=running.environment | {"PATH": ""}, check=True)


async def post(store: Store, clients: int, votes: int) -> None:
    """The route behind a real HTTP server in this process, and clients beside it."""
    route = FeedbackRoute(IDS, VoteWriter(store), Metrics(DIGEST, "shop"), lambda: datetime.now(UTC), DIGEST)
    port = free_port()
    config = uvicorn.Config(route, port=port, log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    bodies = [{"response_id": IDS.issue(DIGEST, START), "verdict": "up", "comment": "好茶"} for _ in range(votes)]
    waited: list[float] = []

    async def client(share: Sequence[dict[str, str]]) -> None:
        async with aiohttp.ClientSession() as session:
            for body in share:
                began = time.perf_counter()
                async with session.post(f"http://127.0.0.1:{port}/v1/feedback", json=body) as reply:
                    assert reply.status == 202, await reply.text()
                waited.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client(bodies[at::clients]) for at in range(clients)))
    seconds = time.perf_counter() - began
    server.should_exit = True
    await serving
    route.close()
    waited.sort()
    median, late = waited[len(waited) // 2] * 1000, waited[len(waited) * 99 // 100] * 1000
    print(
        f"{votes:,} votes of {clients} clients in {seconds:.1f} s: {votes / seconds * 60:,.0f} a minute, each answered"
    )
    print(f"  within {median:.0f} ms (median), {late:.0f} ms (99 %)")
    assert FeedbackLog(store).tally(DIGEST).n == votes


def fill(store: Store, votes: int) -> tuple[float, int]:
    """Votes of many users on one version in ten days and two steps, as four servers would write them."""
    draw, began = random.Random(7), time.perf_counter()  # noqa: S311
    writers, digest = [VoteWriter(store) for _ in range(4)], "sha256:" + "cd" * 32
    verdicts: tuple[Verdict, Verdict] = ("up", "down")
    for at in range(0, votes, 500):
        records = []
        for number in range(at, min(at + 500, votes)):
            answered = START + timedelta(seconds=number * 864_000 / votes)
            user = f"{draw.randrange(votes // 3):012x}"
            said = Feedback(response_id=IDS.issue(digest, answered, user), verdict=draw.choice(verdicts))
            step = step_tag("shop-run-7", draw.randrange(2))
            record = FeedbackRecord(
                digest=digest, step=step, user=user, answered=answered, received=answered, feedback=said
            )
            records.append(record)
        writers[at // 500 % 4].write(records)
    return time.perf_counter() - began, len(store.keys(f".tunegate/votes/{'cd' * 32}/"))


def count(uri: str, votes: int) -> None:
    """In a process of its own: what counting takes."""
    store, digest = Store.open(uri), "sha256:" + "cd" * 32
    before, began, busy = peak_mib(), time.perf_counter(), time.process_time()
    log = FeedbackLog(store)
    found = log.tallies(digest, "shop-run-7", START)
    first, first_busy = time.perf_counter() - began, time.process_time() - busy
    grown = peak_mib() - before
    VoteWriter(store).write(
        [
            FeedbackRecord(
                digest=digest,
                answered=START,
                received=START,
                feedback=Feedback(response_id=IDS.issue(digest, START), verdict="up"),
            )
        ]
    )
    began, busy = time.perf_counter(), time.process_time()
    log.tallies(digest, "shop-run-7", START)
    again, again_busy = time.perf_counter() - began, time.process_time() - busy
    counted = sum(tally.n for tally in found.values())
    print(
        f"{votes:,} votes, {counted:,} of which count, in {first:.1f} s ({first_busy:.1f} s of CPU) and {grown:.0f} MiB"
    )
    print(f"  again, with one more, in {again:.1f} s ({again_busy:.1f} s of CPU)")


def peak_mib() -> float:
    """The most memory that this process has had; what getrusage says includes its parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
