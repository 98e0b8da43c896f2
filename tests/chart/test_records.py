"""Decision records as the chart turns them on: a key that the operator can sign with, and where it finds it."""

from __future__ import annotations

import base64
from pathlib import Path

from tests.chart.rendering import pick, render
from tunegate.records.signing import read_key

STORE = {"store": {"uri": "s3://models"}}


def test_without_them_the_operator_signs_nothing() -> None:
    objects = render(STORE)
    (container,) = pick(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert not [word for word in container["args"] if word.startswith("--signing-key")]
    assert not [each for each in objects if each["metadata"]["name"] == "tunegate-records"]


def test_the_operator_reads_the_key_that_the_chart_makes() -> None:
    objects = render(STORE | {"records": {"enabled": True}})
    secret = pick(objects, "Secret", "tunegate-records")
    pem = base64.b64decode(secret["data"]["signing.key"])
    assert read_key(pem, "the Secret").public_key.keytype == "ed25519"
    pod = pick(objects, "Deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (file,) = (Path(word.partition("=")[2]) for word in container["args"] if word.startswith("--signing-key"))
    (mount,) = (each for each in container["volumeMounts"] if each["mountPath"] == str(file.parent))
    (volume,) = (each for each in pod["volumes"] if each["name"] == mount["name"])
    assert (volume["secret"]["secretName"], file.name) == ("tunegate-records", next(iter(secret["data"])))


def test_a_key_of_ones_own_is_named() -> None:
    objects = render(STORE | {"records": {"enabled": True, "create": False, "secretName": "ours"}})
    assert not [each for each in objects if each["kind"] == "Secret" and each["metadata"]["name"] == "ours"]
    volumes = pick(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "records", "secret": {"secretName": "ours"}} in volumes
