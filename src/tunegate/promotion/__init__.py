"""Deciding, and nothing else: gates, the sequential test, and what a promotion needs next.

Everything here is pure: no I/O, no clock, no randomness. The operator and the local platform call the same functions.
"""
