"""The append-only journal: cause, decision and outcome, written down before anything is done."""
