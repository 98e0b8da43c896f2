"""Agents: a model thinks, asks a tool, reads what it says, and so on until it answers, within limits.

The model is given; `loop` and `calls` are the two ways in which it asks for tools. Only `web` opens connections.
"""

from tunegate.agent.loop import ask
from tunegate.agent.steps import Answered, Reply, Taken
from tunegate.agent.tools import CALCULATOR, Source, Tool
from tunegate.api.versions import Limits

__all__ = ["CALCULATOR", "Answered", "Limits", "Reply", "Source", "Taken", "Tool", "ask"]
