"""The story `make quickstart` tells: three runs, one promoted, one rejected, one rolled back."""
