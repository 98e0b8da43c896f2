"""One version behind OpenAI's API and KServe's health routes, with signed answers and the feedback they get.

Generating text is an engine's work, over HTTP; nothing here imports torch. `run` lies in `tunegate.serving.app`.
"""
