"""ReAct: a model thinks, asks a tool, reads what it says, and so on until it answers, within limits.

The model and the tools are given; nothing here knows of HTTP.
"""

from tunegate.agent.loop import Answered, Limits, Reply, Taken, ask
from tunegate.agent.tools import CALCULATOR, Tool

__all__ = ["CALCULATOR", "Answered", "Limits", "Reply", "Taken", "Tool", "ask"]
