"""Evaluation by people: stored answers of versions, judged blind on one page, as a result that a gate can name.

A review is a folder: `review.json` says what is judged and never changes, `marks.jsonl` holds what people said and
only grows.
"""
