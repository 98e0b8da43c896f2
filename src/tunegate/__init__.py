"""From a dialogue corpus to a promoted, feedback-watched language model."""

__version__ = "0.1.0"
