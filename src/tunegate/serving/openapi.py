"""What is served, as OpenAPI describes it. A test compares it with the routes, and asks each as it says."""

from __future__ import annotations

from typing import Any

import msgspec

from tunegate import __version__
from tunegate.api.feedback import Feedback
from tunegate.api.traffic import COMPLETIONS_PATH, GENERATION_PATH
from tunegate.serving.limits import DRAWING, WHOLE
from tunegate.serving.protocols import BY_PATH
from tunegate.serving.protocols.dashscope import GenerationInput, GenerationParameters

Schema = dict[str, Any]
_TEXT = {"type": "string"}
_MESSAGE = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["system", "user", "assistant", "tool"]},
        "content": {
            "oneOf": [
                _TEXT,
                {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["type", "text"],
                        "properties": {"type": {"const": "text"}, "text": _TEXT},
                    },
                },
            ]
        },
    },
}
_SAMPLING: dict[str, Any] = {
    **{
        name: {"type": "integer" if name in WHOLE else "number", "minimum": least, "maximum": most}
        for name, (least, most) in DRAWING.items()
    },
    "max_tokens": {"type": "integer", "minimum": 1},
    "stop": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 16}]},
    "stream": {"type": "boolean"},
    "stream_options": {"type": "object", "properties": {"include_usage": {"type": "boolean"}}},
    "user": _TEXT,
}


def document(model: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of a server whose clients ask for `model`."""
    structs = [Feedback, GenerationInput, GenerationParameters]
    forms, components = msgspec.json.schema_components(structs, ref_template="#/components/schemas/{name}")
    return {
        "openapi": "3.1.0",
        "info": {"title": f"tunegate: {model}", "version": __version__},
        "paths": _paths(model, *forms),
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where keys are asked for."}
            },
        },
    }


def _paths(model: str, judged: Schema, asked: Schema, parameters: Schema) -> dict[str, Any]:
    """Every path, with the forms of a verdict and of a question in DashScope's form."""
    chat = {
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
        "max_completion_tokens": {"type": "integer", "minimum": 1},
        "response_format": {"type": "object", "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}}},
    }
    served = {"const": model}
    question = _body({"model": served, **chat, **_SAMPLING}, "model", "messages")
    prompt = _body({"model": served, "prompt": _TEXT, **_SAMPLING}, "model", "prompt")
    generation = {"model": served, "input": asked, "parameters": parameters}
    conversation = _operation("Answer a conversation.", question, "OpenAI", stream=True)
    spoken = {
        COMPLETIONS_PATH: _operation("Continue a prompt as it stands.", prompt, "OpenAI", stream=True),
        GENERATION_PATH: _operation(
            "Answer a conversation or a prompt.", _body(generation, "model", "input"), "DashScope", stream=True
        ),
    }
    named = [{"name": "name", "in": "path", "required": True, "schema": _TEXT}]
    return {
        **{path: {"post": spoken.get(path, conversation)} for path in BY_PATH},
        "/v1/feedback": {
            "post": {
                **_operation("Say whether an answer was good.", judged, "tunegate"),
                "responses": {
                    "200": _json("Amended, or said before."),
                    "202": _json("Kept."),
                    "4XX": _json("Refused."),
                },
            }
        },
        "/v1/models": {"get": _operation("The model that is served.", None, "OpenAI")},
        "/v1/models/{name}": {"get": {**_operation("One model.", None, "OpenAI"), "parameters": named}},
        "/v2/health/live": {"get": _operation("Whether the server runs.", None, "KServe", key=False)},
        "/v2/health/ready": {"get": _operation("Whether the model answers.", None, "KServe", key=False)},
        "/metrics": {
            "get": {
                "summary": "For Prometheus.",
                "tags": ["KServe"],
                "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": _TEXT}}}},
            }
        },
    }


def _body(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def _operation(
    summary: str, body: dict[str, Any] | None, protocol: str, *, stream: bool = False, key: bool = True
) -> dict[str, Any]:
    answer = _json("The answer.")
    if stream:
        answer["content"]["text/event-stream"] = {"schema": _TEXT}
    operation: dict[str, Any] = {
        "summary": summary,
        "tags": [protocol],
        "responses": {
            "200": answer,
            "4XX": _json("Refused; the message names the field, or when to ask again."),
            "5XX": _json("The engine failed, or is not ready; ask again."),
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if key:
        operation["security"] = [{}, {"key": []}]
    return operation


def _json(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}
