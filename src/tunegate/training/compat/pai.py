"""A line for Alibaba's PAI: what it asks for, whether its variables come from the line or from the environment.

Pure: text in, a value out. `pytorchjob` makes a job of it.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

import msgspec

from tunegate.api.errors import UsageError
from tunegate.training.compat.llamafactory import flags, name_of

_KNOWN = ("script", "entryFile", "userDefinedParameters", "workerCount", "cluster", "buckets", "gpuRequired", "ossHost")
_WITHOUT_EFFECT = {
    "arn": "the job's keys come from --store-secret",
    "autoEnablePSTaskFailover": "a job's pods are restarted anyway",
    "enableDockerFusion": "what pods run is --image",
    "jobName": "the job is called by --name",
    "maxHungTimeBeforeGCInSeconds": "a job ends with its processes",
    "oversubscription": "Kubernetes has priorities of its own",
    "python": "what pods run is --image",
    "version": "what pods run is --image",
}
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_MOUNT = re.compile(r"/data/oss_bucket_(\d+)(?:/(.*))?")
_BUCKETS = ("oss://", "s3://")
_QUOTED = re.compile(r"""("(?:\\.|[^"\\])*"|'[^']*')""")
_OPTION = r"-(?:D[A-Za-z]+=|project\s)"
_LAUNCHER = re.compile(r"--(nnodes|nproc[_-]per[_-]node)[= ](\S+)")
_PACKAGE_FILES = ("dataset_dir", "deepspeed")
# As it is pasted from pages and chats: quotes that a word processor bent, spaces that don't break, Windows' line ends.
_TYPED = str.maketrans({"“": '"', "”": '"', "‘": "'", "’": "'", "\u00a0": " ", "；": ";", "\r": None})
_HOST = re.compile(r"((?:oss|s3)://[^./?]+)\.(oss-[a-z0-9-]+\.aliyuncs\.com)")
_PROMPT = re.compile(r"^[ \t]*(?:[!%$>]|odps@[^>\n]*>)[ \t]*(?=(?:pai|set|use)\b)", re.IGNORECASE | re.MULTILINE)
_CONTINUED = re.compile(r"\\[ \t]*\n")
_COMMENT = re.compile(r"(?:#|--(?=\s|$)).*?(?=\n|$)")


@dataclass(frozen=True)
class PaiJob:
    """What a line asks for.

    arguments: the flags of training, `--name=value`; where buckets were mounted, with the buckets' URIs.
    store: where checkpoints go, if the line had them written into a bucket.
    package: the archive whose files relative paths in `arguments` mean.
    processes: those of each of `workers` pods. cpu, memory: of each pod, as Kubernetes counts; None was not asked for.
    """

    arguments: tuple[str, ...]
    run: str
    store: str | None
    package: str | None
    workers: int
    processes: int
    gpus: int
    cpu: str | None
    memory: str | None
    endpoint_url: str | None
    notes: tuple[str, ...] = ()


def read_line(text: str, given: Mapping[str, str]) -> PaiJob:
    """The job of a `pai -name pytorch...` line; its variables are set in lines before it, or in `given`.

    Spaces that were lost before -D and -project are put back. Raises UsageError for what tunegate can't do.
    """
    line = _Line(text, given)
    buckets, endpoint_url = line.buckets()
    cluster, launcher = line.cluster(), line.launcher()
    workers = line.option("workerCount") or str(cluster.get("count", "") or launcher.get("nnodes", "1"))
    percent = _whole("gpu", line.option("gpuRequired") or cluster.get("gpu", 0))
    if percent % 100:
        raise UsageError(f"The line asks for {percent} % of a GPU; Kubernetes gives whole ones: 100, 200 and so on.")
    gpus = percent // 100
    processes = launcher.get("nproc_per_node") or str(gpus or 1)
    script, parameters = line.option("script").partition("?")[0], line.option("userDefinedParameters")
    line.check()
    package = script if re.match(r"(oss|s3)://.+\.(tar\.gz|tgz|tar)$", script) else None
    unused = () if package or not script else (f"-Dscript has no effect: {script} isn't oss://BUCKET/JOB.tar.gz.",)
    arguments, output_dir, store = _arguments(_shell(parameters), buckets, has_package=package is not None)
    job = PaiJob(
        arguments=arguments,
        run=name_of(output_dir),
        store=store,
        package=package,
        workers=_whole("workerCount", workers, least=1),
        processes=_whole("nproc_per_node", processes, least=1),
        gpus=gpus,
        cpu=f"{_whole('cpu', cluster['cpu']) / 100:g}" if "cpu" in cluster else None,
        memory=f"{_whole('memory', cluster['memory'])}Mi" if "memory" in cluster else None,
        endpoint_url=endpoint_url,
        notes=(*unused, *line.notes),
    )
    if "nnodes" in launcher and launcher["nnodes"] != str(job.workers):
        raise UsageError(f"The line has --nnodes={launcher['nnodes']} and {job.workers} workers; make them the same.")
    if gpus and job.processes > gpus:
        raise UsageError(f"The line has {job.processes} processes for {gpus} GPUs a worker; make them the same.")
    return job


class _Line:
    """The options of a line by name, with ${variables} replaced by their values; it remembers which are not set."""

    def __init__(self, text: str, given: Mapping[str, str]) -> None:
        before, rest = _statement(text)
        self._variables = {**given, **dict(part.split("=", 1) for part in before if "=" in part)}
        self._options: dict[str, str] = {}
        self._missing: dict[str, None] = {}
        while rest:
            part = rest.pop(0)
            if part.lower() in ("-name", "-project") and rest:
                self._options[part[1:].lower()] = rest.pop(0)
            elif part.startswith("-D") and "=" in part:
                name, _, value = part[2:].partition("=")
                if self._options.get(name, value) != value:
                    raise UsageError(f"-D{name} is {self._options[name]!r} and {value!r} in the pai line; keep one.")
                self._options[name] = value
            else:
                raise UsageError(f"{part!r} in the pai line is not an option; they are -name, -project and -DX=Y.")
        if not self._options.get("name", "").startswith("pytorch"):
            raise UsageError(
                f"pai -name {self._options.get('name', '')} is not PyTorch; tunegate submits pai -name pytorch... ."
            )
        options = [name for name in self._options if name not in ("name", "project")]
        if unknown := [f"-D{name}" for name in options if name not in (*_KNOWN, *_WITHOUT_EFFECT)]:
            names, verb = ", ".join(unknown), "are" if len(unknown) > 1 else "is"
            known = ", ".join(f"-D{name}" for name in _KNOWN)
            raise UsageError(f"{names} {verb} not known and has no meaning here; leave it out, or of: {known}.")
        reasons = [(name, _WITHOUT_EFFECT[name]) for name in options if name in _WITHOUT_EFFECT]
        self.notes = tuple(f"-D{name} has no effect: {reason}." for name, reason in reasons)

    def option(self, name: str) -> str:
        """The value of -D`name`; empty where it was left out."""
        return self._expand(self._options.get(name, ""))

    def buckets(self) -> tuple[tuple[str, ...], str | None]:
        """Each bucket's URI, and the endpoint if one is named beside them."""
        uris, hosts = [], [self.option("ossHost")]
        for bucket in filter(None, map(str.strip, self.option("buckets").split(","))):
            uri, _, query = bucket.partition("?")
            if not re.match(r"(oss|s3)://", uri):
                raise UsageError(f"-Dbuckets has {uri!r}; a bucket is written oss://BUCKET/.")
            host = _HOST.match(uri)
            uris.append((_HOST.sub(r"\1", uri) if host else uri).rstrip("/"))
            hosts += [host[2]] if host else parse_qs(query).get("host", [])
        named = dict.fromkeys(host if "://" in host else f"https://{host}" for host in hosts if host)
        if len(named) > 1:
            raise UsageError(f"The buckets are on {' and '.join(named)}; a job has one endpoint: keep one of them.")
        return tuple(uris), next(iter(named), None)

    def cluster(self) -> dict[str, Any]:
        """What -Dcluster says of a worker: its count, and its cpu, gpu (both in hundredths) and memory (MiB)."""
        if not (text := self.option("cluster")):
            return {}
        try:
            roles = msgspec.json.decode(text, type=dict[str, dict[str, Any]])
            if others := roles.keys() - {"worker"}:
                raise UsageError(f"-Dcluster has the role {min(others)}; PyTorch has workers alone: leave it out.")
            return roles.get("worker", {})
        except msgspec.DecodeError as error:
            raise UsageError(f'-Dcluster is not JSON such as {{"worker": {{"gpu": 100}}}}: {error}.') from None

    def launcher(self) -> dict[str, str]:
        """What -DentryFile tells a launcher: nnodes, nproc_per_node."""
        found = _LAUNCHER.findall(self._options.get("entryFile", ""))
        return {name.replace("-", "_"): self._expand(value) for name, value in found}

    def check(self) -> None:
        """Raise UsageError for variables that were used and are not set."""
        if self._missing:
            names = ", ".join(f"${{{name}}}" for name in self._missing)
            raise UsageError(f"The line uses {names}; set it in the environment, or in a line before pai.")

    def _expand(self, text: str) -> str:
        for name in _VARIABLE.findall(text):
            if name not in self._variables:
                self._missing[name] = None
        expanded = _VARIABLE.sub(lambda match: self._variables.get(match[1], ""), text)
        return self._expand(expanded) if expanded != text and _VARIABLE.search(expanded) else expanded


def _statement(text: str) -> tuple[list[str], list[str]]:
    """The words before the `pai` line, and those of it, up to the ';' that ends it; comments are left out."""
    statements, spaced = [], ""  # with a space before each option, outside quotes: a copied line may have lost them
    for piece in _pieces(_PROMPT.sub("", _CONTINUED.sub(" ", text.translate(_TYPED)))):
        if piece == ";":
            statements.append(spaced)
            spaced = ""
        elif piece[0] in "\"'":
            spaced += piece
        else:
            lost = " " * bool(spaced and re.match(_OPTION, piece))
            spaced += lost + re.sub(rf"(?<=\S)(?={_OPTION})", " ", piece)
    before: list[str] = []
    found: list[str] | None = None
    for words in map(_shell, (*statements, spaced)):
        start = next((place for place, word in enumerate(words) if word.lower() == "pai"), None)
        if start is None:
            before += words if found is None else []
        elif found is not None:
            raise UsageError("There are several `pai` lines; give one of them.")
        else:
            before += words[:start]
            found = words[start + 1 :]
    if found is None:
        inner = next((word for word in before if re.match(r"\s*pai\s", word, re.IGNORECASE)), None)
        if inner is None:
            raise UsageError("There is no `pai` line; give the whole command, with pai -name in front.")
        set_before, found = _statement(inner)  # what odpscmd -e was given
        before += set_before
    return before, found


def _pieces(text: str) -> Iterator[str]:
    """`text` in quoted pieces, ';' and what is between them, without comments: from # or -- to a line's end."""
    place, plain = 0, ""
    while place < len(text):
        quoted, comment = _QUOTED.match(text, place), _COMMENT.match(text, place)
        begins_a_word = not plain or plain[-1].isspace()
        if comment and begins_a_word:
            place = comment.end()
        elif quoted and not plain.endswith("\\"):
            yield from filter(None, (plain, quoted[0]))
            place, plain = quoted.end(), ""
        elif text[place] == ";":
            yield from filter(None, (plain, ";"))
            place, plain = place + 1, ""
        else:
            place, plain = place + 1, plain + text[place]
    yield from filter(None, (plain,))


def _shell(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"The pai line can't be read: {error}; quote it as for a shell.") from None


def _whole(name: str, value: Any, least: int | None = None) -> int:
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r} in the pai line; it must be a whole number.") from None
    if least is not None and number < least:
        raise UsageError(f"{name} is {number} in the pai line; it must be at least {least}.")
    return number


def _arguments(
    parameters: list[str], buckets: tuple[str, ...], *, has_package: bool
) -> tuple[tuple[str, ...], str, str | None]:
    """The flags of training, the run's folder, and the store if that folder was in a bucket."""
    kept, output_dir, store = [], "", None
    for argument, flag, value in flags(parameters):
        if flag in _PACKAGE_FILES and value and not value.startswith(("/", *_BUCKETS)) and not has_package:
            raise UsageError(
                f"--{flag} {value} is a file of the script's archive; give -Dscript=oss://BUCKET/JOB.tar.gz."
            )
        parts = [] if value is None else value.split(",") if flag in ("data_path", "dataset") else [value]
        mapped = None if value is None else ",".join(_in_a_bucket(part.strip(), buckets) for part in parts)
        if flag == "output_dir" and value and mapped:
            is_in_a_bucket = mapped.startswith(_BUCKETS)
            output_dir = mapped.rstrip("/") if is_in_a_bucket else posixpath.normpath(mapped).lstrip("./")
            store = output_dir.rpartition("/")[0] if is_in_a_bucket else None
            mapped = f"/scratch/{output_dir.rpartition('/')[2] if store else output_dir}"
        kept.append(argument if not flag else f"--{flag}" if mapped is None else f"--{flag}={mapped}")
    if not output_dir:
        raise UsageError("-DuserDefinedParameters has no --output_dir; say where the run keeps its checkpoints.")
    return tuple(kept), output_dir, store


def _in_a_bucket(path: str, buckets: tuple[str, ...]) -> str:
    """The URI of what was mounted; another path as it is."""
    mount = _MOUNT.fullmatch(path)
    if not mount and path.startswith("/data/oss_bucket"):
        raise UsageError(f"{path} is in no bucket; the folder of the first one is /data/oss_bucket_0/.")
    if not mount:
        return path
    number, rest = int(mount[1]), (mount[2] or "").strip("/")
    if number >= len(buckets):
        raise UsageError(f"{path} is in bucket {number}, and -Dbuckets names {len(buckets)}; name it there.")
    return "/".join(filter(None, [buckets[number], rest]))
