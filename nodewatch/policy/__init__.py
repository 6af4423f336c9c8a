"""Decisions as pure functions: what is known goes in with the time, what to do comes out with its reason."""
