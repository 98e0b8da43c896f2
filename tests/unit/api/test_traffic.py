import pytest

from tunegate.api.traffic import ANSWER_PATHS, parse_step, step_label

MOST_MATCHES = 8  # of one rule of an HTTPRoute, before Gateway API 1.2


@pytest.mark.parametrize(
    "promotion",
    ["shop-run-7-0123456789ab", "shop-v1.5-run.2-0123456789ab", "team-a/shop-v1.5", f"{'b' * 63}/{'a' * 253}", "s"],
)
@pytest.mark.parametrize("index", [0, 1, 99, 999])
def test_a_label_says_promotion_and_step(promotion: str, index: int) -> None:
    assert parse_step(step_label(promotion, index)) == (promotion, index)


@pytest.mark.parametrize(
    "label",
    [
        "",
        "/0",
        "shop-run-7",
        "shop-run-7/",
        "shop-run-7/-1",
        "shop-run-7/01",
        "shop-run-7/1.0",
        "shop-run-7/1000",
        "shop-run-7/\u0661",
        "a/shop/run-7/1",
        "team.a/shop/1",
        "/shop/1",
        "Shop/1",
        "-shop/1",
        "shop-/1",
        " shop/1",
        "shop/1\n",
        "a" * 254 + "/1",
    ],
)
def test_what_is_no_label_names_no_step(label: str) -> None:
    assert parse_step(label) is None


def test_one_rule_of_an_old_gateway_api_holds_all_answers() -> None:
    assert len(set(ANSWER_PATHS)) == len(ANSWER_PATHS) <= MOST_MATCHES
