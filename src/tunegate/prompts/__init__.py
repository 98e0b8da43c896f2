"""Prompts as files: a template and typed values in, messages out.

Everything but `library` is pure, random suffixes of fences included: the caller gives them.
"""

from tunegate.prompts.library import builtin_names, load_template
from tunegate.prompts.render import Message, render
from tunegate.prompts.template import Template, parse_template

__all__ = ["Message", "Template", "builtin_names", "load_template", "parse_template", "render"]
