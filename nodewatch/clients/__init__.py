"""The only importers of libraries that speak to other systems."""
