"""The daemon of one node: it reads, judges, answers hooks and reports. Wiring, no decisions."""
