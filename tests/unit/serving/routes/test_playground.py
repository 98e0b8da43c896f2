"""The page as files: who gets it, under which rules, and that what it is made of is what npm has."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from starlette.responses import JSONResponse
from starlette.testclient import TestClient

from tunegate.serving.playground import FOLDER
from tunegate.serving.routes.front import Front
from tunegate.serving.routes.playground import playground

ROOT = Path(__file__).parents[4]
BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
VENDORED = dict(reversed(line.split()) for line in (FOLDER / "vendor/SHA256SUMS").read_text().splitlines())


@pytest.fixture
def client() -> TestClient:
    return TestClient(Front(playground(JSONResponse({"status": "alive"})), "more"))


@pytest.mark.parametrize("accept", ["*/*", "application/json", None], ids=["kubelet", "JSON", "says nothing"])
def test_probes_get_what_they_got(client: TestClient, accept: str | None) -> None:
    client.headers.pop("accept")
    assert client.get("/", headers={"accept": accept} if accept else {}).json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/", "/playground", "/playground/"])
def test_browsers_get_the_page(client: TestClient, path: str) -> None:
    page = client.get(path, headers=BROWSER)

    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.text == (FOLDER / "index.html").read_text()
    assert page.headers["vary"] == "accept"


def test_a_slash_too_many_is_taken_away_below_any_prefix(client: TestClient) -> None:
    moved = client.get("/playground/", follow_redirects=False)
    assert moved.headers["location"] == "../playground"


def test_every_file_that_the_page_names_is_served(client: TestClient) -> None:
    named = set(re.findall(r'(?:href|src)="(playground/[^"]+)"', (FOLDER / "index.html").read_text()))
    for script in FOLDER.glob("*.js"):
        named |= {f"playground/{name}" for name in re.findall(r'(?:from|import) "\./([^"]+)"', script.read_text())}
    assert {"playground/app.js", "playground/vendor/purify.js", "playground/icon.svg"} <= named

    for name in named:
        answer = client.get(f"/{name}")
        assert answer.content == (FOLDER.parent / name).read_bytes()
        assert answer.headers["content-type"].split(";")[0] in {"text/css", "text/javascript", "image/svg+xml"}
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path", ["vendor/SHA256SUMS", "vendor/README.md", "index.html", "../routes/playground.py", "%2e%2e/app.py"]
)
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    assert client.get(f"/playground/{path}").status_code == 404


@pytest.mark.parametrize("path", ["/playground", "/playground/app.js"])
def test_the_browser_may_load_nothing_from_elsewhere_and_run_nothing_inline(client: TestClient, path: str) -> None:
    policy = client.get(path).headers["content-security-policy"]
    directives = dict(part.strip().partition(" ")[::2] for part in policy.split(";"))

    assert directives["default-src"] == "'self'"
    assert directives["require-trusted-types-for"] == "'script'"
    assert not re.search(r"unsafe|https?:|data:|\*", policy)
    assert {directives[name] for name in ("base-uri", "form-action", "frame-ancestors", "object-src")} == {"'none'"}


def test_a_file_that_a_browser_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/playground/app.js").headers["etag"]

    assert client.get("/playground/app.js", headers={"if-none-match": f'"old", W/{tag}'}).status_code == 304
    assert client.get("/playground/style.css", headers={"if-none-match": tag}).status_code == 200


def test_what_is_vendored_is_what_npm_has_and_says_its_license() -> None:
    vendored = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (FOLDER / "vendor").glob("*.js")}
    assert vendored == VENDORED

    licenses = "".join(path.read_text() for path in (FOLDER / "vendor").glob("LICENSE*"))
    assert all(words in licenses for words in ("Apache License", "MarkedJS", "Jason Miller", "Mozilla Public License"))


def test_the_page_fetches_nothing_from_another_host() -> None:
    for path in FOLDER.iterdir():
        if path.suffix in {".html", ".js", ".css"}:
            assert not re.search(r"https?://|@import|@font-face", path.read_text()), path.name


def test_the_wheel_has_the_page(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "."]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)

    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    packed = {name for name in wheel.namelist() if name.startswith("tunegate/serving/playground/")}
    files = (path for path in FOLDER.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert packed == {f"tunegate/serving/playground/{path.relative_to(FOLDER).as_posix()}" for path in files}
