"""Kubernetes for any program: objects of any kind, copies of them, a work queue, a lease and pods."""
