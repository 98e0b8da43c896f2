"""What numbers of few questions are worth: pure functions of the standard library, for gates, suites and reports."""
