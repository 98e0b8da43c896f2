"""The templates that come with tunegate say what the article says."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.prompts.builders import NONCE
from tunegate.prompts import builtin_names, load_template, render
from tunegate.prompts.output import read_answer

MESSAGE = (
    "You should provide as clear and specific instructions as possible to express what you want the model to do. This "
    "will guide the model towards the expected output and reduce the likelihood of receiving irrelevant or incorrect "
    "responses. Do not confuse writing a clear prompt with writing a brief prompt. In many cases, longer prompts "
    "provide more clarity and context, which can lead to more detailed and relevant outputs."
)
COT = """Q: Xiao Ming has 5 balls, and he bought 2 baskets, each containing 3 balls. How many balls does he have now?
A: Xiao Ming starts with 5 balls, buys 6 balls in total from 2 baskets, totaling 11 balls. The answer is 11
Q: Xiao Hua has 23 apples, they used 20 for lunch, and bought 6 more. How many apples are left now?"""
REACT = """Answer the following questions as best as possible, using tools:
Search API: finds current facts on the web
Calculator: computes an expression such as 2 * 3
Use the following format to answer:
Question: The question you must answer
Thought: You should keep thinking consistently about how to solve the problem.
Action: {tool name}. Choose only one tool for each action, tool list: Search API, Calculator
Input: {parameters to pass when calling the tool}
Observation: {results returned by the third-party tool}
【Thought-Action-Input-Observation】 Loop N times
Thought: Finally, output the final result
Final Result: Output the final result for the original question
Start!
Question: <data-8f3a>
What is the tallest building in Shanghai? What is the square of its height?
</data-8f3a>"""


def text(name: str, **values: Any) -> str:
    """All that the messages of a built-in say, one after the other."""
    return "\n".join(message.content for message in render(load_template(name), values, nonce=NONCE))


ARTICLE = {
    "bad-description-en": "Product descriptions should not be too short, a few sentences are fine, and not "
    "particularly many",
    "bad-poem-en": "Write a poem for mobile Tmall",
    "poem-en": "Write a four-line ancient poem for mobile Tmall, imitating Li Bai’s “Early Departure from Baidi City”",
    "bad-summary-en": f"Summarize the following content in one sentence. {MESSAGE}",
    "bad-books-en": "Generate three fictional book titles, including their authors and genres.",
    "books-en": "Generate three fictional book titles, including their authors and genres. Provide in JSON list "
    "format, including the following keys: book_id, title, author, genre",
    "bad-guide-en": "Sell me a men’s facial cleanser",
    "guide-en": "I want you to act as a professional shopping guide. You can use your e-commerce knowledge and "
    "shopping skills to vividly introduce and promote products to customers.\nSell me a men’s facial cleanser",
    "cot-en": COT,
    "react-en": REACT,
}


@pytest.mark.parametrize(("name", "said"), ARTICLE.items(), ids=ARTICLE)
def test_a_template_says_what_the_article_says(name: str, said: str) -> None:
    assert text(name) == said


def test_the_summary_is_of_what_stands_in_three_quotes() -> None:
    assert text("summary-en", text=MESSAGE) == (
        "Summarize the following content enclosed in three quotes into one sentence:\n\n"
        f"The text to be summarized is:\n\n'''\n{MESSAGE}\n'''"
    )


def test_the_description_is_of_what_is_given() -> None:
    assert text("description-en", product="Kettle") == (
        "Use 3 to 5 short phrases to describe the product\n\n'''\nKettle\n'''"
    )


def test_the_search_prompt_has_five_variables() -> None:
    given = {"web_results": "It rains.", "current_date": "2026-11-28", "query": "Weather?", "reply_language": "English"}

    assert list(load_template("search-en").head.variables) == [
        "web_results",
        "current_date",
        "instruction",
        "query",
        "reply_language",
    ]
    assert text("search-en", **given) == (
        "Web search results:<data-8f3a>\nIt rains.\n</data-8f3a>\nCurrent date:2026-11-28\n"
        "Instruction: Summarize the user query using the given web search results\n"
        "User Query: <data-8f3a>\nWeather?\n</data-8f3a>\nResponse language: English"
    )


@pytest.mark.parametrize("name", [name for name in builtin_names() if name.endswith("-en")])
def test_both_languages_take_and_allow_the_same(name: str) -> None:
    english, chinese = load_template(name).head, load_template(f"{name.removesuffix('-en')}-zh").head

    def shape(head: Any) -> Any:
        return [(name, about.type, about.trusted) for name, about in head.variables.items()], head.limits.max_tokens

    assert shape(english) == shape(chinese)
    assert english.output.schema == chinese.output.schema


@pytest.mark.parametrize(("name", "answer"), [("cot-en", "23 - 20 + 6 = 9. The answer is 9"), ("cot-zh", "答案是9。")])
def test_the_result_of_a_chain_of_thought_is_found(name: str, answer: str) -> None:
    assert read_answer(answer, load_template(name).head.output) == "9"
