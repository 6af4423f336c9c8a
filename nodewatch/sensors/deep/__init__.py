"""Diagnostics that load the machine for seconds to hours: run when a node is validated, stopped when a job wants it."""
