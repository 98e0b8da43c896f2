"""A knowledge base as a tool: its chunks as sources, or its fixed sentence where it does not say."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from tunegate.agent.tools import Found, Source, Tool
from tunegate.api.errors import KnowledgeError, ToolError

if TYPE_CHECKING:  # numpy and bm25s, which only an index needs
    from tunegate.knowledge.index import Hit, Searcher

logger = logging.getLogger(__name__)

_FAILED = "The knowledge base can't be searched now; ask something else, or answer without it."


def source(hit: Hit) -> Source:
    """A chunk as a source: its place in its document, and its likeness or, without vectors, its BM25."""
    chunk = hit.chunk
    score = hit.bm25 if hit.cosine is None else hit.cosine
    return Source(chunk.path, chunk.text, chunk.source, chunk.line, chunk.page, score=score, number=hit.number)


def tool(index: Searcher) -> Tool:
    """Looks things up in an index."""

    async def call(question: str) -> Found:
        if not question.strip():
            raise ToolError("The knowledge base is asked nothing; write a question.")
        try:
            found = await asyncio.to_thread(index.search, question)
        except KnowledgeError as error:  # which names servers that no client is to know of
            logger.error("knowledge failed", extra={"reason": str(error)})  # noqa: TRY400 - it is told in a sentence
            raise ToolError(_FAILED) from None
        return found.refusal or tuple(map(source, found.hits))

    return Tool(
        ("Knowledge base", "知识库"),
        ("finds what our own documents say", "查找我们自己的资料"),
        call,
        key="knowledge",
        takes=("question", "the question, in full", "完整的问题"),
    )
