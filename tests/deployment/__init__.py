"""The compose files as an operator uses them; these tests take a container engine, and run with --containers."""
