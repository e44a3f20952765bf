"""Benchmarks: fixed workloads, and what they are measured against."""
