"""The regular look at what users disliked, and what follows from it for suites and corpus."""
