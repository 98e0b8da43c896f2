"""Watches model versions and users' verdicts in a Kubernetes cluster, and promotes or rolls back accordingly."""

__version__ = "0.1.0"
