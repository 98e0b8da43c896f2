"""What evaluation refuses, it takes once the message's words were followed: suites, cases, models and servers."""

from __future__ import annotations

import json
import shutil
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.builders import make_version
from tests.refusals import refused, without_story
from tests.unit.evaluation.builders import (
    SUBJECTS,
    answers,
    blank,
    choices,
    write_business,
    write_choice,
    write_injection,
)
from tests.unit.evaluation.servers import Server, said
from tunegate.api.errors import PromptError
from tunegate.api.pinned import index_of
from tunegate.api.versions import Release
from tunegate.evaluation.cases import fill, read_cases
from tunegate.evaluation.choice import read_subjects
from tunegate.evaluation.harness import HarnessSuite
from tunegate.evaluation.knowledge import KnowledgeSuite
from tunegate.evaluation.knowledge import measure as measure_knowledge
from tunegate.evaluation.models.http import HttpModel
from tunegate.evaluation.models.local import LocalModel
from tunegate.evaluation.models.remote import VERSION_HEADER, RemoteModel
from tunegate.evaluation.sheets import Sheets
from tunegate.evaluation.suites import load_suite, load_suites, shipped_suites
from tunegate.knowledge.build import build
from tunegate.knowledge.documents import Document, Section
from tunegate.models.templates import TURN_END
from tunegate.processes import free_port
from tunegate.prompts import Message
from tunegate.prompts.template import Limits
from tunegate.store import Store

ROW = {"id": "a", "messages": [{"role": "user", "content": "Price?"}], "rules": [{"kind": "contains", "any": ["5"]}]}
HEADER = "id,question,A,B,C,D,answer\n"
GOOD = HEADER + "0,Which?,a,b,c,d,A\n"
KETTLE = "---\nvariables: {product: {type: text, description: Its name.}}\n---\nCost of {{ product | fence }}?\n"
RULES = "variables: {product: kettle}, rules: [{kind: contains, any: ['5']}]"
HELLO = [[{"role": "user", "content": "Price?"}]]
Do = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """Refused in these words, and what is done instead."""

    words: str
    wrong: Do
    right: Do


def business(*rows: dict[str, Any]) -> Do:
    return lambda folder: load_suite(write_business(folder, rows))


def test_a_suite_for_an_index_measures_a_release_that_was_given_one(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEGATE_CACHE", str(tmp_path / "cache"))
    suite = load_suite("shop-knowledge", 4)
    assert isinstance(suite, KnowledgeSuite)
    build([Document("a.md", "Help", (Section("Order before 2 pm."),))], tmp_path / "index")
    digest = store.artifacts("knowledge").publish(tmp_path / "index", "help").digest
    release, version = Release(format="huggingface"), make_version("run-1")
    with refused(" could measure; give it some: tunegate release derive "):
        measure_knowledge(store, version, release, suite, lambda more: None)
    release = Release(format="huggingface", knowledge=index_of("help", digest))
    assert measure_knowledge(store, version, release, suite, lambda more: None).metric("answered")


def without_questions(folder: Path) -> None:
    write_business(folder, [ROW])
    (folder / "questions.jsonl").unlink()
    load_suite(folder)


def choice(text: str | None = None, name: str = "val/care_val.csv", **about: object) -> Do:
    """A suite of choices, one file of which has this text; None leaves it, and "" takes it away."""

    def load(folder: Path) -> None:
        write_choice(folder, SUBJECTS, **about)
        if text:
            (folder / name).write_text(text)
        elif text == "":
            (folder / name).unlink()
        load_suite(folder)

    return load


def elsewhere(data: str) -> Do:
    """Its questions in another folder, or in a zip."""

    def load(folder: Path) -> None:
        folder.mkdir()
        write_choice(folder / "data", SUBJECTS)
        (folder / "broken.zip").write_text("no zip")
        with zipfile.ZipFile(folder / "good.zip", "w") as archive:
            for path in (folder / "data").rglob("*.*"):
                archive.write(path, path.relative_to(folder / "data"))
        shutil.copy(folder / "data/suite.yaml", folder / "suite.yaml")
        with (folder / "suite.yaml").open("a") as stream:
            stream.write(f"data: {data}\n")
        load_suite(folder)

    return load


def unreadable(folder: Path) -> None:
    write_business(folder, [ROW])
    (folder / "memory").symlink_to("/proc/self/mem")  # readable for nobody, also as root
    load_suite(folder)


def case_file(text: str | None) -> Do:
    """A file of cases with this text, or none; its template is asked with the values of each."""

    def load(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        (folder / "kettle.prompt").write_text(KETTLE)
        if text:
            (folder / "cases.yaml").write_text(f"template: kettle.prompt\ncases: [{text}]\n")
        fill(*read_cases(folder / "cases.yaml"), "8f3a")

    return load


def both(*names: str) -> Do:
    def load(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        load_suites([write_business(folder / f"{number}", [ROW], name=name) for number, name in enumerate(names)])

    return load


CASES = [
    Case("a business suite keeps its questions there", without_questions, business(ROW)),
    Case("holds no question; a suite needs at least one", business(), business(ROW)),
    Case("; give each question its own", business(ROW, ROW), business(ROW, {**ROW, "id": "b"})),
    Case(" is not a usable question: ", business({"id": "a"}), business(ROW)),
    Case("; name it there or remove the file", choice(GOOD, "val/more_val.csv"), choice()),
    Case("; add what is missing, or name what is there in", choice("", "val/care_val.csv"), choice()),
    Case("; lower shots in suite.yaml", choice(shots=2), choice(shots=1)),
    Case("have no explanation; set shots: 0 or cot: false", choice(cot="true"), choice(cot="false")),
    Case("have no explanation; set shots: 0 or cot: false", choice(cot="true"), choice(cot="true", shots=0)),
    Case("; correct `data` in suite.yaml", elsewhere("nowhere"), elsewhere("data")),
    Case(" is neither a folder nor a zip that can be read", elsewhere("broken.zip"), elsewhere("good.zip")),
    Case(" names no subject; a suite needs at least one", choice("{}", "subject_mapping.json"), choice()),
    Case("; it must map each subject to [English, Chinese", choice("[]", "subject_mapping.json"), choice()),
    Case(" repeats the id ", choice(GOOD + "0,Which?,a,b,c,d,A\n"), choice(GOOD + "1,Which?,a,b,c,d,A\n")),
    Case(
        "; quote cells with a comma", choice(HEADER + "0,Is?,a,b,c,d,e,A\n"), choice(HEADER + '0,Is?,a,b,c,"d,e",A\n')
    ),
    Case(" holds no question; add one", choice(HEADER), choice(GOOD)),
    Case(" is not a CSV file in UTF-8: ", choice(HEADER + '0,"Which?,a,b,c,d,A\n'), choice(GOOD)),
    Case("; keep one.", choice("id,question,A,B,C,D,D,answer\n0,Which?,a,b,c,d,e,A\n"), choice(GOOD)),
    Case(" has no column ", choice("id,question,A,B,C,answer\n0,Which?,a,b,c,A\n"), choice(GOOD)),
    Case("so it can't be scored; complete it", choice(HEADER + "0,Which?,a,b,c,d,\n"), choice(GOOD)),
    Case("; it must be one of A, B, C and D", choice(HEADER + "0,Which?,a,b,c,d,E\n"), choice(GOOD)),
    Case("; set compat: official in suite.yaml", choice(compat="lm_eval", mode="chat"), choice(mode="chat")),
    Case(" is a question without ", choice(HEADER + "0,,a,b,c,d,A\n"), choice(GOOD)),
    Case("; make it readable or remove it", unreadable, business(ROW)),
    Case("or criteria in suite.yaml for people, or no answer", business({**ROW, "rules": []}), business(ROW)),
    Case("; write one with a template and cases", case_file(None), case_file(f"{{id: a, {RULES}}}")),
    Case(
        "; give each an id of its own",
        case_file(f"{{id: a, {RULES}}}, {{id: a, {RULES}}}"),
        case_file(f"{{id: a, {RULES}}}, {{id: b, {RULES}}}"),
    ),
    Case("so no answer could fail; write at least one", case_file("{id: a}"), case_file(f"{{id: a, {RULES}}}")),
    Case(
        "; an injection suite has attacks.jsonl and pages.jsonl.",
        lambda folder: load_suite(write_injection(folder, attacks=None)),
        lambda folder: load_suite(write_injection(folder)),
    ),
    Case(
        " is empty; an injection suite needs at least one line there.",
        lambda folder: load_suite(write_injection(folder, attacks="")),
        lambda folder: load_suite(write_injection(folder)),
    ),
    Case(
        " is not usable: …; correct it.",
        lambda folder: load_suite(write_injection(folder, attacks='{"id": "a"}')),
        lambda folder: load_suite(write_injection(folder)),
    ),
    Case("; change the name in one suite.yaml", both("shop-a", "shop-a"), both("shop-a", "shop-b")),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.words)
def test_what_the_message_says_is_taken(case: Case, tmp_path: Path) -> None:
    with refused(case.words):
        case.wrong(tmp_path / "suite")
    shutil.rmtree(tmp_path / "suite")
    case.right(tmp_path / "suite")


def test_a_suite_is_named_as_the_message_lists_it(tmp_path: Path) -> None:
    with refused("; give a folder with a suite.yaml or a shipped one: ") as caught:
        load_suite("shop-xx")
    assert str(caught.value).endswith(", ".join(shipped_suites()) + ".")
    load_suite(shipped_suites()[0])
    with refused("so it is not a suite; see a shipped one for an example"):
        load_suite(tmp_path)
    with refused(" leaves no question; give 1 or more"):
        load_suite(shipped_suites()[0], 0)
    load_suite(shipped_suites()[0], 1)


def test_a_case_gets_the_values_that_its_template_asks_for(tmp_path: Path) -> None:
    rules = RULES.replace("{product: kettle}", "{}")
    with pytest.raises(PromptError, match=r"^The case a: .*product"):
        case_file(f"{{id: a, {rules}}}")(tmp_path)
    case_file(f"{{id: a, {RULES}}}")(tmp_path)


def test_questions_in_parquet_are_read_once_what_reads_them_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow  # as the extra that the message names installs it
    import pyarrow.parquet

    extras = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert any("pyarrow" in needed for needed in extras["optional-dependencies"]["parquet"])
    write_choice(tmp_path, {"care": ["A"]}, shots=0)
    shutil.rmtree(tmp_path / "val")
    (tmp_path / "care").mkdir()
    file = tmp_path / "care/val-00000-of-00001.parquet"
    file.write_bytes(b"no Parquet")
    with monkeypatch.context() as patch, refused("; install what reads it: pip install 'tunegate[parquet]'"):
        patch.setitem(sys.modules, "pyarrow.parquet", None)
        load_suite(tmp_path)
    with refused(" is not a Parquet file: "):
        load_suite(tmp_path)
    row = {"question": "Which?", "A": "a", "B": "b", "C": "c", "D": "d", "answer": "A"}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    load_suite(tmp_path)


# A model in a folder.


def test_a_template_and_a_dialogue_that_suit_each_other_are_answered(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system turn') }}")
    with refused(" refuses a dialogue: "):
        answers(LocalModel(folder), HELLO, 2)
    shutil.copyfile(base / "chat_template.jinja", folder / "chat_template.jinja")
    answers(LocalModel(folder), HELLO, 2)


def test_a_model_is_asked_what_its_tokenizer_and_its_context_allow(base: Path) -> None:
    model = LocalModel(base)
    with refused("; measure this model on business suites only"):
        choices(model, ["Which?"], ["A", "neither"])
    with refused("; lower max_tokens or shots in suite.yaml"):
        answers(model, HELLO, 4096)
    answers(model, HELLO, 2)


def test_a_file_that_can_be_read_is_read(tmp_path: Path) -> None:
    write_choice(tmp_path, {"one": "A"})
    extra = tmp_path / "val" / "two_val.csv"
    extra.symlink_to("/proc/self/mem")  # refuses to be read, also by root
    with refused(" can't be read (…); check its permissions"):
        read_subjects(tmp_path, "ceval", "val", 0, None)
    extra.unlink()
    assert read_subjects(tmp_path, "ceval", "val", 0, None)


def test_a_tokenizer_that_names_its_end_of_sequence_is_used(base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(base, tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"] = [token for token in tokenizer["added_tokens"] if token["content"] != TURN_END]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("generation_config.json", "config.json"):
        text = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(text | {"eos_token_id": None}))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": None}))
    with refused(" has no end-of-sequence token; set eos_token in it"):
        LocalModel(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    answers(LocalModel(folder), HELLO, 2)


# A model behind a URL.

VERSION = make_version("test")


def measured(url: str, key: str | None = None, name: str | None = None) -> None:
    """As `tunegate evaluate` asks."""
    with closing(RemoteModel(url, name, key, VERSION.digest, 1)) as model:
        model.answer(HELLO, 8, blank(HELLO))


def behind_our_server(url: str, key: str | None = None, name: str | None = None) -> None:
    """As `tunegate evaluate` asks an engine."""
    given = {"option": "--engine-url", "key_in": "TUNEGATE_ENGINE_KEY"}
    with closing(RemoteModel(url, name, key, VERSION.digest, 1, **given)) as model:
        model.answer(HELLO, 8, blank(HELLO))


def prompted(url: str, key: str | None = None, name: str | None = None) -> None:
    """As `tunegate prompts test` asks."""
    with closing(HttpModel(url, name, key)) as model:
        model.answer([Message("user", "Price?")], Limits())


@contextmanager
def told_to_check(option: str, words: str) -> Iterator[None]:
    with refused(words) as told:
        yield
    assert str(told.value).endswith(f"check {option}.")


@pytest.mark.parametrize(
    ("ask", "option"), [(measured, "--url"), (behind_our_server, "--engine-url"), (prompted, "--url")]
)
def test_a_server_is_asked_by_its_url(ask: Callable[[str], None], option: str) -> None:
    with Server(lambda body: said("yes")) as server:
        with refused(" is not a URL; write it as http://HOST:PORT") as told:
            ask(server.url.removeprefix("http://"))
        assert str(told.value).startswith(option)
        with told_to_check(option, "; start a server or check "):
            ask(f"http://127.0.0.1:{free_port()}")
        with (
            Server(None, models=(200, {})) as other,
            told_to_check(option, " lists no models as OpenAI's API does; check "),
        ):
            ask(other.url)
        with Server(lambda body: (200, {}, {})) as other, told_to_check(option, " answer as OpenAI's API does; check "):
            ask(other.url)
        ask(server.url)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (measured, " or run the same command again later: answers so far are kept"),
        (behind_our_server, " or run the same command again later: answers so far are kept"),
        (prompted, ", the model's name and the key in "),
    ],
)
def test_a_server_is_sent_the_key_that_it_wants(ask: Callable[..., None], words: str) -> None:
    ours, theirs = ("--url", "TUNEGATE_API_KEY"), ("--engine-url", "TUNEGATE_ENGINE_KEY")
    with Server(lambda body: said("yes"), key="5e") as server:
        with refused(" refuses to list its models: ") as told:
            ask(server.url)
        assert str(told.value).endswith(
            "check {} and the key in {}.".format(*(theirs if ask is behind_our_server else ours))
        )
        with refused(words):
            ask(server.url, "5f", "shop")
        ask(server.url, "5e", "shop")
        ask(server.url, "5e")


def test_a_server_that_is_well_again_is_asked_again() -> None:
    replies = [said("yes"), (501, {}, {"x-should-retry": "false"})]
    with Server(lambda body: replies.pop()) as server:
        with refused(" or run the same command again later: answers so far are kept"):
            measured(server.url)
        measured(server.url)


def test_a_server_gets_the_questions_that_it_takes() -> None:
    def reply(body: Any) -> Any:
        return said("yes") if body["max_tokens"] < 8 else (400, {"error": {"message": "too long"}}, {})

    with Server(reply) as server, closing(RemoteModel(server.url, None, None, VERSION.digest, 1)) as model:
        with refused(" refuses a question: ") as told:
            answers(model, HELLO, 8)
        assert "too long; change it, or lower max_tokens or shots in suite.yaml" in str(told.value)
        assert answers(model, HELLO, 7) == ["yes"]


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_without_log_probabilities_is_measured_in_chat_mode(refuses: bool) -> None:
    """Which it leaves out, or, as our own embedded engine, refuses to be asked for."""

    def reply(body: Any) -> Any:
        if refuses and "logprobs" in body:
            return 400, {"error": {"message": "The engine of this server can't do logprobs."}}, {}
        return said("A")

    with Server(reply) as server, closing(RemoteModel(server.url, None, None, VERSION.digest, 1)) as model:
        with refused(" tells no log-probabilities; set mode: chat in suite.yaml, or leave out "):
            choices(model, ["Which?"], ["A", "B"])
        assert answers(model, HELLO, 8) == ["A"]


def test_the_server_of_the_version_is_asked() -> None:
    with (
        Server(lambda body: said("yes", **{VERSION_HEADER: "sha256:" + "0" * 64})) as other,
        refused("; ask the server of that version"),
    ):
        measured(other.url)
    with Server(lambda body: said("yes", **{VERSION_HEADER: VERSION.digest})) as server:
        measured(server.url)


# Messages whose words vary as a whole, or whose way out is followed with a store.
ELSEWHERE = {
    " is not a shard; write its number": "test_shards.py::test_what_is_no_shard_is_refused_with_an_example",
    "start them again.": "test_shards.py::test_answers_that_are_missing_are_asked_again",
    "let all of them run on nodes of one kind": "test_shards.py::test_shards_of_unlike_nodes_are_not_mixed",
    "would leave out the soft prompt in ": "models/test_adapted.py::test_the_harness_asks_no_model_with_a_soft_prompt",
    "The case …: …": "test_remedies.py::test_a_case_gets_the_values_that_its_template_asks_for",
}


@pytest.mark.filterwarnings("ignore")  # of the many packages of lm-evaluation-harness
def test_tasks_of_the_harness_are_asked_once_all_is_here(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval", reason="needs lm-evaluation-harness: pip install 'tunegate[lm-eval]'")
    from tunegate.evaluation.harness.tasks import measure

    about = "name: tried\nkind: lm_eval\nlanguage: en\ndescription: For tests.\nlicense: CC0-1.0\ntasks: TASKS\n"
    asking = "{{question}}"
    task = "task: own\ndataset_path: PATH\noutput_type: generate_until\ntest_split: test\ndoc_to_text: TEXT\n"
    task += "doc_to_target: '{{answer}}'\ngeneration_kwargs: {until: ['.']}\nmetric_list: [{metric: exact_match}]\n"

    def write(tasks: str, path: str = "csv", text: str = asking, files: str = "{test: questions.csv}") -> HarnessSuite:
        (tmp_path / "suite.yaml").write_text(about.replace("TASKS", tasks))
        own = task.replace("PATH", path).replace("TEXT", f"'{text}'")
        (tmp_path / "own.yaml").write_text(own + (f"dataset_kwargs: {{data_files: {files}}}\n" if files else ""))
        suite = load_suite(tmp_path)
        assert isinstance(suite, HarnessSuite)
        return suite

    with refused(" names no tasks; list those of lm-evaluation-harness"):
        write("[]")
    with monkeypatch.context() as without, refused(" wants lm-evaluation-harness, which is not installed"):
        without.setattr(sys, "path", [])
        write("[own]")
    with refused("lm-evaluation-harness has no task "):
        len(write("[owm]"))
    with refused(", which is no file in "):
        len(write("[own]"))
    with refused(", which is not here; put a copy of that data set into "):
        len(write("[own]", "shop/questions", files=""))
    (tmp_path / "questions.csv").write_text("question,answer\nWhat?,That.\n")
    with refused("can't be loaded: "):
        len(write("[own]", text="{{question"))
    with refused(" runs code that the model writes, which is not done here"):
        len(write("[own]", files="{test: questions.csv}}\nunsafe_code: true\nmetadata: {version: 1"))
    suite = write("[own]")
    assert len(suite) == 1
    with refused("are asked in this process; leave out --url"):
        measure(object(), suite.asked, Sheets(None, lambda more: None))
    measure(LocalModel(learned), suite.asked, Sheets(None, lambda more: None))


def test_every_message_has_its_story() -> None:
    assert without_story("evaluation", Path(__file__)) == []
    for test in ELSEWHERE.values():
        path, _, name = test.partition("::")
        assert f"\ndef {name}(" in (Path(__file__).parent / path).read_text()
