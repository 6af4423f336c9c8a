"""Sensors read from recordings of the real tools' output: one file a sensor, `load` in each, found by their names."""
