"""Tests of one thing at a time: no services, no clock, done in seconds."""
