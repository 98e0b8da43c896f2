"""Quantities as Kubernetes writes them: 1, "0.5", "500m" and "1.5Gi" stand for numbers."""

from __future__ import annotations


def is_same_quantity(left: object, right: object) -> bool:
    """Whether both stand for the same number. What is no quantity is the same as nothing."""
    from kubernetes.utils.quantity import parse_quantity

    try:
        return bool(parse_quantity(str(left)) == parse_quantity(str(right)))
    except ValueError:
        return False
