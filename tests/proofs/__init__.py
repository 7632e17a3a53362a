"""What is proved about the contracts outside the test run: coverage, mutants, static analysis, symbolic execution."""
