"""Broken defenses: front ends before a plain classifier that are known to be worth nothing."""
