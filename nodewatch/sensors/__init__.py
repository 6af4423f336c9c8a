"""Sources of samples: each reads one part of the world, under a deadline, and never makes the caller wait."""
