"""What the commands refuse, they take once the message's words were followed; commands in it are run as they stand."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.answering import answering, listening
from tests.builders import at, make_cluster_policy, make_version
from tests.refusals import call, past, refused, without_story
from tests.unit.knowledge.embedding import embedding
from tunegate.api.errors import UsageError
from tunegate.api.policy import write_policy_file
from tunegate.api.promotion import Phase, Promotion, PromotionStatus
from tunegate.cli.quickstart import make_room
from tunegate.cli.train import config_of
from tunegate.feedback import ResponseIds
from tunegate.local.state import Home
from tunegate.processes import free_port
from tunegate.shop import DATA
from tunegate.store import Store
from tunegate.training.config import settings

TEMPLATE = """---
description: Answer.
variables:
  query: {type: text, description: What is asked.}
limits: {prompt_tokens: LIMIT}
---
--- user
{{ query | fence }}
"""


def as_it_stands(message: str) -> str:
    """Run the command that a message names."""
    (command,) = re.findall(r"tunegate [a-z].*?(?=`|$)", message)
    return call(*shlex.split(command)[1:])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "a home")


def keep(home: Home, phase: Phase) -> None:
    status = PromotionStatus(phase=phase)
    home.save(Promotion(name="shop-1", created=at(0), candidate=make_version("run-1"), status=status))


def test_a_run_is_asked_for_in_a_file_that_is_there(tmp_path: Path) -> None:
    words = "; give the path of a file of settings."
    with refused(words):
        call("train", tmp_path / "sft.yaml")
    (tmp_path / "sft.yaml").write_text("seed: 7\n")
    with pytest.raises(UsageError, match="A run needs --model_name_or_path") as caught:
        call("train", tmp_path / "sft.yaml")
    assert words not in str(caught.value)


def test_a_run_is_looked_at_where_it_lies(tmp_path: Path) -> None:
    with refused("; give its folder, or MODEL/RUN and --store."):
        call("runs", "show", tmp_path / "run")
    for name in ("one", "two"):
        (tmp_path / name / "run").mkdir(parents=True)
        (tmp_path / name / "run" / "run.json").touch()
    assert "run (2)" in call("runs", "show", tmp_path / "one" / "run", tmp_path / "two" / "run")


def test_one_tool_is_asked_once() -> None:
    with answering(lambda _: "The Sobrin kettle [1].") as (url, _):
        words = ("agent", "ask", "SO-103", "--url", url, "--dialect", "once")
        with refused("--dialect once asks one tool; give it what it needs: --search, --knowledge or --catalogue."):
            call(*words)
        table = DATA / "knowledge" / "products_en.csv"
        assert "The Sobrin kettle [1]." in call(*words, "--catalogue", table)


def test_a_promotion_is_stopped_and_found_as_the_message_says(home: Home) -> None:
    keep(home, "Paused")
    with refused("past approval; to stop it: tunegate promotions abort ") as caught:
        call("promotions", "approve", "shop-1", "--home", home.folder)
    as_it_stands(str(caught.value))
    assert home.promotions()[0].abort is not None
    with refused("There is no promotion ") as caught:
        call("promotions", "explain", "shop-2", "--home", home.folder)
    assert "shop-1" in as_it_stands(str(caught.value))


def test_what_is_over_is_explained(home: Home) -> None:
    keep(home, "Succeeded")
    with refused("it can't be decided any more; see: tunegate promotions explain ") as caught:
        call("promotions", "abort", "shop-1", "--home", home.folder)
    assert "shop/run-1" in as_it_stands(str(caught.value))


def test_an_evaluation_asks_a_server_or_an_engine(store: Store) -> None:
    at, engine = ("--url", "http://127.0.0.1:9"), ("--engine-url", "http://127.0.0.1:9")
    words = ("evaluate", "shop/run/checkpoint-1", "--suite", "shop-en", *where(store))
    both = "--url asks a server, and --engine-url an engine behind one of ours; give one of them."
    with refused(both):
        call(*words, *at, *engine)
    for right in (at, engine):
        past(both, *words, *right)
    alone = "--engine-model says what the engine at --engine-url calls the model; give both."
    with refused(alone):
        call(*words, "--engine-model", "shop")
    past(alone, *words, *engine, "--engine-model", "shop")


def test_the_engine_of_a_policy_is_asked_from_here_with_the_key_that_the_message_names(
    home: Home, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = {"address": "https://llm.example", "keySecret": {"name": "vendor", "key": "token"}}
    policy = make_cluster_policy(serving={"engine": "URL", "url": url}, initialVersion=f"{store.uri}/a/b/checkpoint-0/")
    (file := home.folder.parent / "policy.yaml").write_bytes(write_policy_file(policy))
    words = ("local", "up", "--home", home.folder, "--policy", file, "--port", free_port(), *where(store))
    keyless = " asks for a key, which a cluster has in the Secret "
    with refused(keyless) as caught:
        call(*words)
    (name,) = re.findall(r"set (\w+) to it here", str(caught.value))
    monkeypatch.setenv(name, "sk-1")
    past(keyless, *words)


def where(store: Store) -> list[str]:
    return ["--store", store.uri, *(["--endpoint-url", store.endpoint_url] if store.endpoint_url else [])]


def test_a_platform_that_does_not_run_is_looked_at(home: Home) -> None:
    with refused("No platform runs on ") as caught:
        call("local", "down", "--home", home.folder)
    assert "Not running." in as_it_stands(str(caught.value))


@contextmanager
def server() -> Iterator[str]:
    """Something that takes feedback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"status": "accepted"}).encode()
            self.send_response(202)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as url:
        yield url


def test_feedback_is_sent_to_where_a_server_is() -> None:
    answer = ResponseIds(bytes(32), "shop").issue("sha256:" + "ab" * 32, at(0))
    with refused("is not a URL; write it as http://HOST:PORT"):
        call("feedback", "send", answer, "up", "--url", "localhost:8080")
    with refused("start the server or give its --url"):
        call("feedback", "send", answer, "up", "--url", f"http://127.0.0.1:{free_port()}")
    with server() as url:
        with refused("This feedback can't be sent: "):
            call("feedback", "send", answer, "up", "--url", url, "--tag", "x" * 65)
        assert "Accepted." in call("feedback", "send", answer, "up", "--url", url, "--tag", "x" * 64)


def test_a_key_is_named_as_the_message_says(tmp_path: Path) -> None:
    with refused("take letters, digits, '.', '_' and '-', at most 63"):
        call("keys", "create", "a b", "--keys", tmp_path / "keys.yaml")
    call("keys", "create", "a_b", "--keys", tmp_path / "keys.yaml")


def test_results_go_where_there_is_a_folder(store: Store, tmp_path: Path) -> None:
    command = ("evaluate", "tea/run/checkpoint-1", "--suite", "shop-en", "--output")
    words = "does not exist; make it or choose another "
    with refused(words):
        call(*command, tmp_path / "new/results.json")
    past(words, *command, tmp_path / "results.json")
    (tmp_path / "new").mkdir()
    past(words, *command, tmp_path / "new/results.json")


def test_a_server_is_named_with_what_it_calls_the_model(store: Store) -> None:
    words = "says what the server at --url calls the model; give both"
    command = ("evaluate", "tea/run/checkpoint-1", "--suite", "shop-en", "--model-name", "tea")
    with refused(words):
        call(*command)
    past(words, *command, "--url", "http://127.0.0.1:9")


def test_a_submission_is_of_one_suite_of_choices(store: Store, tmp_path: Path) -> None:
    words = "is for one suite of kind choice; evaluate the others by themselves"
    command = ("evaluate", "tea/run/checkpoint-1", "--submission", tmp_path / "submission.json", "--suite")
    with refused(words):
        call(*command, "shop-en")
    past(words, *command, "shop-choice")


def test_a_shard_is_of_a_model_that_is_loaded_here(store: Store) -> None:
    words = "--shard is for a model that is loaded here, and is not measured by --force; leave that out"
    command = ("evaluate", "tea/run/checkpoint-1", "--suite", "shop-en", "--shard", "0/2")
    with refused(words):
        call(*command, "--force")
    past(words, *command)


def test_a_run_is_named_with_its_model(store: Store) -> None:
    words = " is not a run; write MODEL/RUN, as versions are named"
    with refused(words):
        call("models", "curve", "run-1")
    past(words, "models", "curve", "tea/run-1")


def test_a_merged_model_has_one_place_to_go(store: Store, tmp_path: Path) -> None:
    words = "either a FOLDER, or --publish NAME"
    with refused(words):
        call("merge", "tea/run/checkpoint-1")
    past(words, "merge", "tea/run/checkpoint-1", tmp_path / "merged")
    past(words, "merge", "tea/run/checkpoint-1", "--publish", "tea/merged/checkpoint-1")
    with refused("; name a folder that does not exist yet"):
        call("merge", "tea/run/checkpoint-1", tmp_path)


def test_two_versions_are_compared_item_by_item(store: Store) -> None:
    words = "--items compares two versions, the second against the first, without --markdown"
    with refused(words):
        call("models", "compare", "tea/run/checkpoint-1", "--items")
    past(words, "models", "compare", "tea/run/checkpoint-1", "tea/run/checkpoint-2", "--items")


def test_what_is_served_is_named_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_FEEDBACK_KEY", "ab" * 32)
    words = "either a VERSION in the store, or a --folder that holds one"
    with refused(words):
        call("serve")
    past(words, "serve", "tea/run/checkpoint-1")


def test_a_run_has_what_it_needs() -> None:
    given = {setting.name: None for setting in settings()} | {"store_uri": None}
    with refused("`tunegate train --help` says what they are"):
        config_of(dict(given))
    assert "--output_dir" in call("train", "--help")
    given |= {"model_name_or_path": "tiny", "dataset": ("shop",), "output_dir": "run"}
    with refused("give --model, or no --store (TUNEGATE_STORE) to keep none"):
        config_of({**given, "store_uri": "s3://models"})
    config_of({**given, "store_uri": "s3://models", "model": "shop"})
    config_of(dict(given))


def test_a_quickstart_has_a_folder_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with refused("holds something else; name an empty folder with --home"):
        make_room(tmp_path)
    (tmp_path / "empty").mkdir()
    make_room(tmp_path / "empty")


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "answer.prompt"
    path.write_text(TEMPLATE.replace("LIMIT", "300"))
    return path


@pytest.mark.parametrize(
    ("words", "wrong", "right"),
    [
        ("write it as NAME=VALUE", ["--var", "query"], ["--var", "query=Hi"]),
        ("write 4 to 32 lower-case letters and digits", ["--nonce", "A"], ["--nonce", "8f3a", "--var", "query=Hi"]),
        ("holds no values by name; write lines such as", ["--vars", "[Hi]"], ["--vars", "query: Hi"]),
        (" is no YAML: ", ["--vars", "query: ["], ["--vars", "query: Hi"]),
    ],
)
def test_a_template_is_filled_in_as_the_message_says(
    words: str, wrong: list[str], right: list[str], template: Path
) -> None:
    def render(options: list[str]) -> None:
        if options[0] == "--vars":
            (template.parent / "values.yaml").write_text(options[1])
            options = ["--vars", str(template.parent / "values.yaml"), *options[2:]]
        call("prompts", "render", template, *options)

    with refused(words):
        render(wrong)
    render(right)


def test_a_template_and_a_rule_are_named_as_they_are_called(template: Path) -> None:
    with refused("No template ") as caught:
        call("prompts", "show", "serch")
    (names,) = re.findall(r"there are: (.+)\.", str(caught.value))
    call("prompts", "show", names.split(", ")[0])
    with refused("There is no rule ") as caught:
        call("prompts", "lint", template, "--ignore", "nothing")
    (names,) = re.findall(r"the rules are: (.+)\.", str(caught.value))
    call("prompts", "lint", template, "--ignore", names.split(", ")[0])


def test_a_prompt_keeps_to_its_limit_with_less(template: Path, base: Path) -> None:
    template.write_text(TEMPLATE.replace("LIMIT", "60"))
    with refused("and its limit prompt_tokens is"):
        call("prompts", "render", template, "--tokenizer", base, "--var", f"query={'what ' * 200}")
    call("prompts", "render", template, "--tokenizer", base, "--var", "query=Hi")


def test_an_index_has_a_place_and_a_server_a_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEGATE_STORE", raising=False)
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "help.md").write_text("# Help\n\nSend it back within 14 days.\n")
    build = ("knowledge", "build", "help", tmp_path / "help.md")
    with refused("Name the store that the index goes to (--store), or a folder for it (--into)"):
        call(*build, "--embedder", "none")
    call(*build, "--embedder", "none", "--into", tmp_path / "index")
    with embedding() as server:
        with refused(", too: --embedder-model NAME"):
            call(*build, "--embedder", server.url, "--into", tmp_path / "vectors")
        call(*build, "--embedder", server.url, "--embedder-model", "hashing", "--into", tmp_path / "vectors")


# What a cluster refuses, on a real API server, and what needs answers that are stored.
ELSEWHERE = {
    " is no folder with a config.json; put the model's there": "unit/cli/test_plan.py",
    "--card is for pods with GPUs, and the line asks for none": "unit/cli/test_submit.py",
    "Nothing holds … conversations of … tokens on ": "unit/cli/test_plan.py",
    "; set parts in it, or name another": "unit/corpus/test_parts.py",
    "; name a command, as in a shell": "unit/cli/test_local.py",
    " To put one into the store of this folder: tunegate local exec ": "unit/cli/test_local.py",
    "can't be asked which version it serves (": "unit/cli/test_cluster.py",
    "There is nothing to collect from; give --file": "unit/corpus/test_build.py",
    "The log is in the store; name it with --store or ": "unit/corpus/test_build.py",
    " is no business suite, whose questions could be looked for": "unit/corpus/test_build.py",
    " holds no corpus; make one with: ": "unit/corpus/test_build.py",
    "The plan asks for questions; name a teacher with --url": "unit/corpus/test_build.py",
    "--last-week says which days; leave out --since and --until": "unit/cli/test_experience.py",
    ' is not {"question": TEXT}; correct it': "unit/corpus/test_build.py",
    "The plan's seeds hold no question": "unit/corpus/test_build.py",
    " is no dialogue with `messages`; correct it": "unit/corpus/test_build.py",
    " is not UTF-8; ": "unit/corpus/test_build.py",
    "Nothing is taken unless you say where to": "unit/cli/test_experience.py",
    " is after --until ": "unit/cli/test_experience.py",
    " has no criteria in suite.yaml, so nobody would judge": "unit/cli/test_experience.py",
    " is not a file of JSON lines (": "unit/cli/test_experience.py",
    " is multiple choice, which nobody needs to judge; name a suite of kind business": "unit/cli/test_review.py",
    " yet; run: tunegate evaluate ": "unit/cli/test_review.py",
    "--save wants a store; name it with --store or ": "unit/cli/test_review.py",
    " is not NUMBER=NAME or EMAIL=NAME": "unit/cli/test_review.py",
    "Say who uses this store: --cluster, --policy FILE": "unit/cli/test_models.py",
    "A Parquet file can't be written to standard output": "unit/cli/test_feedback.py",
    "Nothing is deleted unless you say what": "unit/cli/test_feedback.py",
    "can't be read; write NAME=NUMBER, such as ": "unit/test_release.py",
    " Then run the same command again.": "unit/cli/test_review.py",
    "Name a store with --store or ": "unit/cli/test_report.py",
    "Name the versions, the one that the others are compared with first": "unit/cli/test_report.py",
    "install Kubeflow's training operator, and create the namespace": "unit/cli/test_submit.py",
    "; see: kubectl get promotionpolicies --namespace": "operator/test_webhooks.py",
    "; ask for … in": "operator/test_promotions_command.py",
    "No suite asked both versions the same questions": "unit/cli/test_compare.py",
    " Check your kubeconfig": "operator/test_promotions_command.py",
    "The API server refused: ": "operator/test_promotions_command.py",
    "check the name, the namespace ": "operator/test_promotions_command.py",
    "Name the model store of the cluster with --store": "operator/test_records.py",
    "; give the one of a port-forward with --url": "operator/test_records.py",
    " is not there any more; create it again from its file": "operator/test_records.py",
    ", so nothing serves that could be asked; start it with: ": "unit/local/test_records.py",
}


def test_every_message_has_its_story() -> None:
    assert without_story("cli", Path(__file__)) == []
    assert all((Path(__file__).parents[2] / path).is_file() for path in ELSEWHERE.values())
