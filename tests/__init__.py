"""The tests, one folder per kind; `./dev test` runs them all."""
