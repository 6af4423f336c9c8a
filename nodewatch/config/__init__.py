"""Configuration: TOML files read into frozen dataclasses; an unknown key is an error that suggests the right one."""
