"""`tunegate quickstart`: the loop on one machine, from a base model to a promotion, a rejection and a rollback.

It drives the same platform, trainer and API as everybody else, and only waits and tells. Every step can be done
again, so a quickstart that was stopped resumes where it was.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING

import msgspec
from openai import DefaultHttpxClient, OpenAI

from tunegate.api.digest import short
from tunegate.api.errors import TunegateError
from tunegate.api.policy import write_policy_file
from tunegate.api.promotion import TERMINAL, Phase, Promotion
from tunegate.api.versions import ModelVersion
from tunegate.local.platform import Platform, PlatformConfig
from tunegate.local.state import Home, write
from tunegate.promotion.counting import SHOWN, stable_version
from tunegate.quickstart.base_models import publish_base
from tunegate.quickstart.knowledge import Grounding, build_index, compare, ground
from tunegate.quickstart.report import (
    Answer,
    Chapter,
    Learning,
    Report,
    VersionReport,
    report_decision,
    report_learning,
    report_version,
)
from tunegate.quickstart.scenario import MODEL, PRODUCTS, Run, Story
from tunegate.quickstart.simulated_users import MAX_TOKENS, SimulatedShoppers
from tunegate.shop import DATA
from tunegate.shop.products import NOT_SOLD
from tunegate.shop.shoppers import Question, load_product_questions, load_questions
from tunegate.store.evaluations import find
from tunegate.training import Preparing, Progress, TrainConfig, Uploading, train

if TYPE_CHECKING:
    from tunegate.quickstart.learning import Lesson

TRIED = SHOWN - {"Progressing"}  # the candidate has a share of the traffic
END_SECONDS = 900.0  # a promotion that takes longer than this in a quickstart hangs


@dataclass(frozen=True)
class Quickstart:
    """say: gets one line at a time. chapters: those that are over."""

    home: Home
    story: Story
    port: int
    say: Callable[[str], None]
    chapters: list[Chapter] = field(default_factory=list)

    @contextlib.contextmanager
    def run(self) -> Iterator[tuple[Platform, Report]]:
        """Tell the story; the platform stays up until the `with` ends."""
        began = time.monotonic()
        config = PlatformConfig(self.home, self.port, evaluation_limit=self.story.evaluation_limit)
        with contextlib.ExitStack() as stack:
            with self._chapter("platform"):
                platform = stack.enter_context(Platform.open(config))
            os.environ.update(platform.environment)  # the trainer finds the store there, as on a command line
            self.say(f"model store up at {platform.store.endpoint_url}, one URL for applications: {platform.url}")
            self.say(f"preparing {self.story.base}")
            with self._chapter("base model"):
                base = publish_base(self.story.base, platform.store, self.home.cache, self.home.logs)
            self.say(f"base model {base.name} published, sha256:{short(base.digest)}; it is the stable version")
            write(self.home.policy_file, write_policy_file(self.story.policy(base.uri)))
            stack.enter_context(platform.running(lambda event: self.say(f"  {event.reason}: {event.message}")))
            tuned = []
            for run in self.story.runs:
                self.say(f"{run.name}: {run.about}")
                with self._chapter(f"{run.name} training"):
                    version = self._train(platform, base, run)
                self._decide(platform, run.name, version, self._questions())
                tuned.append((run, version))
            lesson, learned = self._learn(platform, base)
            tuned += [learned] if learned else []
            tuned.append(self._ground(platform, base))
            yield platform, self._report(platform, base, tuned, lesson, time.monotonic() - began)

    @contextlib.contextmanager
    def _chapter(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        self.chapters.append(Chapter(name=name, seconds=round(time.monotonic() - began, 1)))

    def _decide(self, platform: Platform, name: str, version: ModelVersion, questions: list[Question]) -> None:
        """Wait until it is decided about `version`; where users see it, shoppers ask these questions."""
        with self._chapter(f"{name} evaluation"):
            self._wait_for(version, SHOWN | TERMINAL)
        if self._phase(version) not in SHOWN:
            return
        with self._chapter(f"{name} canary"):
            self._wait_for(version, TRIED | TERMINAL)  # an answer before counts for neither version
            self.say(f"{self.story.shoppers} simulated shoppers ask and vote by rules on the answers")
            with SimulatedShoppers(platform.url, MODEL, questions, self.story.shoppers):
                self._wait_for(version, TERMINAL)

    def _learn(self, platform: Platform, base: ModelVersion) -> tuple[Lesson, tuple[Run, ModelVersion] | None]:
        """Go on from the stable version with what users corrected; nothing where nobody did."""
        from tunegate.quickstart.learning import dataset, prepare  # with scikit-learn, which takes seconds

        folder, stable = self.home.folder / "learned", stable_version(platform.gather())
        since = min(promotion.created for promotion in self.home.promotions()).astimezone(UTC).date()  # days of the log
        with self._chapter("experience review"):
            lesson = prepare(folder, platform.store, self.story, stable.uri, since)
        told = f"{lesson.disliked} disliked answers looked at, {lesson.corrected} of them corrected by users"
        self.say(f"learned: {told}; beside them {lesson.old} dialogues of before")
        if not lesson.questions:
            return lesson, None
        about = f"{platform.store.resolve(lesson.base).run}, trained on with what users corrected"
        run = Run("learned", about, {**self.story.learning, "dataset": (dataset(folder),)})
        write(self.home.policy_file, write_policy_file(self.story.learning_policy(base.uri)))
        with self._chapter("learned training"):
            version = self._train(platform, platform.store.resolve(lesson.base), run)
        new = [asked for asked in self._questions() if asked.messages[-1].content not in lesson.questions]
        self._decide(platform, run.name, version, new or self._questions())
        return lesson, (run, version)

    def _ground(self, platform: Platform, base: ModelVersion) -> tuple[Run, ModelVersion]:
        """Give the stable version the shop's catalogue, under gates on what is said of products."""
        stable = stable_version(platform.gather())
        about = f"the weights of {stable.run} with the shop's catalogue as knowledge"
        self.say(f"knowledge: {about}; nothing is trained")
        write(self.home.policy_file, write_policy_file(self.story.product_policy(base.uri)))
        with self._chapter("knowledge index"):
            chunks = build_index(platform.store, self.story.language, self.home.cache)
            version = ground(platform.store, stable)
        self.say(f"  {chunks} chunks indexed; published {version.name}, sha256:{short(version.digest)}")
        self._decide(platform, "knowledge", version, self._product_questions())
        return Run("knowledge", about, {}), version

    def _product_questions(self) -> list[Question]:
        """Of shoppers who only name a product; where a model can but recite, one that is not sold."""
        asked = load_product_questions(self.story.language)
        return [question for question in asked if question.intent == NOT_SOLD] if self.story.taught else asked

    def _train(self, platform: Platform, base: ModelVersion, run: Run) -> ModelVersion:
        where = {
            "model_name_or_path": base.uri,
            "dataset_dir": str(DATA),
            "output_dir": str(self.home.folder / "runs" / run.name),
            "model": MODEL,
            "run": run.name,
            "store": platform.store.uri,
            "endpoint_url": platform.store.endpoint_url,
        }
        config = msgspec.convert({**self.story.arguments, **run.arguments, **where}, TrainConfig)
        return train(config, self._say_training)[-1]

    def _wait_for(self, version: ModelVersion, phases: frozenset[Phase]) -> None:
        deadline = time.monotonic() + END_SECONDS
        while self._phase(version) not in phases:
            if time.monotonic() > deadline:
                undecided = f"{version.name} was not decided; the logs are in {self.home.logs}"
                raise TunegateError(f"{undecided}. Run the quickstart again: it resumes.")
            time.sleep(0.1)

    def _say_training(self, news: Preparing | Progress | Uploading | ModelVersion) -> None:
        if isinstance(news, Preparing):
            return
        if isinstance(news, ModelVersion):
            self.say(f"  published {news.name}, sha256:{short(news.digest)}")
            return
        if isinstance(news, Uploading):
            self.say(f"  {news}")
            return
        if news.loss is not None and news.tokens_per_second is not None:
            done = f"step {news.current_steps}/{news.total_steps}"
            speed = f"{news.tokens_per_second:.0f} tokens/s, {news.remaining_time} left"
            self.say(f"  {done}: loss {news.loss:.3f}, {speed}")

    def _questions(self) -> list[Question]:
        return load_questions(self.story.language, taught=self.story.taught)

    def _phase(self, version: ModelVersion) -> Phase:
        promotion = self._promotion(version)
        return promotion.status.phase if promotion else "Pending"

    def _promotion(self, version: ModelVersion) -> Promotion | None:
        found = (record for record in self.home.promotions() if record.candidate.digest == version.digest)
        return next(found, None)

    def _report(
        self,
        platform: Platform,
        base: ModelVersion,
        tuned: list[tuple[Run, ModelVersion]],
        lesson: Lesson,
        seconds: float,
    ) -> Report:
        stable = stable_version(platform.gather())
        rows = [(base, "as it came"), *((version, run.about) for run, version in tuned)]
        return Report(
            seconds=round(seconds, 1),
            chapters=tuple(self.chapters),
            stable=stable.digest,
            versions=tuple(self._row(platform, version, about) for version, about in rows),
            decisions=tuple(report_decision(ended) for _, version in tuned if (ended := self._promotion(version))),
            learning=self._learning(platform, lesson, tuned),
            grounding=self._grounding(platform, tuned[-1][1]),
            sample=self._sample(platform),
        )

    def _row(self, platform: Platform, version: ModelVersion, about: str) -> VersionReport:
        found = [find(platform.store, version.digest, suite) for suite in self.story.policy(version.uri).suites]
        return report_version(version, about, [result for result in found if result], self._promotion(version))

    def _learning(self, platform: Platform, lesson: Lesson, tuned: list[tuple[Run, ModelVersion]]) -> Learning | None:
        """The suite before and after; None where nothing was learned."""
        after = next((version for run, version in tuned if run.name == "learned"), None)
        if after is None:
            return None
        before = platform.store.resolve(lesson.base)
        results = [find(platform.store, version.digest, self.story.suite) for version in (before, after)]
        return report_learning(lesson, results[0], results[1]) if results[0] and results[1] else None

    def _grounding(self, platform: Platform, version: ModelVersion) -> Grounding | None:
        """What the catalogue changed; None where one side was not measured."""
        promotion = self._promotion(version)
        if promotion is None or promotion.status.stable is None:
            return None
        digests = (promotion.status.stable.digest, version.digest)
        results = [find(platform.store, digest, PRODUCTS) for digest in digests]
        return compare(results[0], results[1]) if results[0] and results[1] else None

    def _sample(self, platform: Platform) -> Answer:
        """Ask the one URL, as an application would."""
        question = self._product_questions()[0]
        direct = DefaultHttpxClient(trust_env=False)  # a proxy in the environment is for other machines
        with OpenAI(base_url=f"{platform.url}/v1", api_key="none", http_client=direct) as client:
            raw = client.chat.completions.with_raw_response.create(
                model=MODEL, messages=msgspec.to_builtins(question.messages), max_tokens=MAX_TOKENS, temperature=0
            )
        text = raw.parse().choices[0].message.content or ""
        return Answer(
            question=question.messages[-1].content,
            answer=text,
            digest=raw.headers["x-tunegate-version"],
        )
