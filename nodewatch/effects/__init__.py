"""The only code that changes the world: one action in, one outcome out."""
