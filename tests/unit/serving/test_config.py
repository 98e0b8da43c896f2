from __future__ import annotations

from tunegate.serving.config import EngineConfig


def test_an_engine_on_cpus_is_given_fewer_requests_at_a_time() -> None:
    assert EngineConfig().capacity < EngineConfig("vllm").capacity == EngineConfig(url="http://x").capacity


def test_the_key_of_an_engine_is_shown_nowhere() -> None:
    assert "sk-secret" not in repr(EngineConfig(url="http://x", key="sk-secret"))
