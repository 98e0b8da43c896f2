"""One run on disk: its plan, progress, checkpoints and their way to the store. Imports no torch."""
