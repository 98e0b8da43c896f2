"""The words every other package speaks: resource types, results and errors.

Nothing here knows of Kubernetes clients, S3, torch or HTTP. All types are frozen and travel as camelCase JSON, the
same text in the store, on the command line and in custom resources.
"""
