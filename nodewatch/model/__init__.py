"""Frozen values that the rooms hand to each other. Nothing here reads or changes the world."""
