"""Every reason that the operator can give, and every alert, has its entry in the guide to troubleshooting."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from typing import get_args

import pytest

from tests.apiserver import OWN_CRDS, REPOSITORY
from tunegate.api.promotion import Outcome
from tunegate.cli import VERBS

OPERATOR = REPOSITORY / "operators/promotion/src/tunegate_operator"
SOURCES = sorted([*OPERATOR.glob("*.py"), *(REPOSITORY / "src/tunegate/promotion").glob("*.py")])
GUIDE = REPOSITORY / "docs/troubleshooting.md"

# Where a reason stands in a call: its place, and the word it goes by.
PLACES = {"Problem": 1, "Condition": 2, "to": 1, "end": 1, "give_up": 0, "_start_canary": 1}
# Reasons that are no constant where they are used. Empty: it comes from one of the other places.
PASSED_ON: dict[str, set[str]] = {
    "last.reason": set(),
    "last.phase": set(),
    "first.reason": set(),
    "away.reason": set(),
    "decision.reason": set(),
    "found[check].reason": set(),
    "reason": set(),
    "refusal.reason": {"NameTaken", "WebhookUnavailable", "WriteRefused"},
    "kind": {"Verified", "Evaluated"},
    "phase": {"Pending", "Serving", "Promoting", "Suspended"},
    "comparison.outcome": set(get_args(Outcome)),
    "f'{approval.verdict}ByPerson'": {"ApprovedByPerson", "RejectedByPerson"},
}


def reasons() -> dict[str, set[str]]:
    """Every reason that the code can give, by the file that does and its folder."""
    return {f"{path.parent.name}/{path.name}": set(reasons_of(ast.parse(path.read_text()))) for path in SOURCES}


def reasons_of(tree: ast.Module) -> Iterator[str]:
    for function in (each for each in ast.walk(tree) if isinstance(each, ast.FunctionDef)):
        arguments = function.args
        with_default = arguments.args[len(arguments.args) - len(arguments.defaults) :]
        for argument, default in zip(with_default, arguments.defaults, strict=True):
            if argument.arg == "reason":
                yield from words_of(default, function)
        for call in (each for each in ast.walk(function) if isinstance(each, ast.Call)):
            name = getattr(call.func, "id", None) or getattr(call.func, "attr", "")
            if name not in PLACES:
                continue
            named = [each.value for each in call.keywords if each.arg == "reason"]
            for found in [*call.args[PLACES[name] : PLACES[name] + 1], *named]:
                yield from words_of(found, function)


def words_of(found: ast.expr, function: ast.FunctionDef) -> set[str]:
    match found:
        case ast.Constant(value=str(word)):
            return {word} - {""}
        case ast.IfExp(body=body, orelse=other):
            return words_of(body, function) | words_of(other, function)
        case ast.BoolOp(values=values):
            return set().union(*(words_of(each, function) for each in values))
        case ast.Name(id=name) if assigned := list(assigned_to(name, function)):
            return set().union(*(words_of(each, function) for each in assigned))
    word = ast.unparse(found)
    assert word in PASSED_ON, f"{function.name} gives the reason {word}: say in PASSED_ON what that can be"
    return PASSED_ON[word]


def assigned_to(name: str, function: ast.FunctionDef) -> Iterator[ast.expr]:
    for each in (each for each in ast.walk(function) if isinstance(each, ast.Assign)):
        for target in each.targets:
            if isinstance(target, ast.Name) and target.id == name:
                yield each.value
            if isinstance(target, ast.Tuple):
                names = [getattr(part, "id", "") for part in target.elts]
                values = [each.value.body, each.value.orelse] if isinstance(each.value, ast.IfExp) else [each.value]
                if name in names:
                    yield from (v.elts[names.index(name)] for v in values if isinstance(v, ast.Tuple))


def test_reasons_are_found_wherever_they_stand() -> None:
    found = reasons()
    assert {"StoreUnreachable", "CredentialsRefused"} <= found["tunegate_operator/store_watch.py"]
    assert {"GatesPassed", "Approved", "Baked", "TargetModified"} <= found["promotion/phases.py"] | found[
        "promotion/decide.py"
    ]
    assert {"RejectedByPerson", "TrafficRestored", "Readable", "Waiting", "Worse"} <= found[
        "tunegate_operator/conditions.py"
    ]
    with pytest.raises(AssertionError, match="PASSED_ON"):
        list(reasons_of(ast.parse("def f(x): Problem('Ready', x.why, '')")))


def test_every_reason_and_every_alert_has_one_entry_and_nothing_else_has() -> None:
    entries = re.findall(r"^### (.+)$", GUIDE.read_text(), re.MULTILINE)
    alerts = set(re.findall(r"troubleshooting\.md#(\w+)", (OWN_CRDS.parent / "rules/alerts.yaml").read_text()))
    used = set().union(*reasons().values())
    assert sorted(used - set(entries)) == []
    assert sorted(each for each in set(entries) - used if each.lower() not in alerts) == []
    assert sorted(alerts - {each.lower() for each in entries}) == []
    assert len(entries) == len(set(entries))


def test_every_entry_about_a_trouble_says_where_to_look_and_what_to_do() -> None:
    troubles = GUIDE.read_text().partition("\n## When all is well\n")[0]
    entries = troubles.split("\n### ")[1:]
    assert [entry.split("\n")[0] for entry in entries if not re.search(r"\n- Look: .+\n- Do: ", entry, re.DOTALL)] == []


def test_every_command_of_ours_and_every_link_exists() -> None:
    text = GUIDE.read_text()
    named = re.findall(r"\btunegate (models|promotions|feedback)\s+([a-z]+)", text)
    assert len(named) > 5
    for group, verb in named:
        assert verb in importlib.import_module(VERBS[group][0]).command.commands
    for target in re.findall(r"\]\(#(\w+)\)", text):
        assert f"### {target}\n" in text.lower()
