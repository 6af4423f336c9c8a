"""Tables of facts about hardware, each row with its source, and their typed readers. They are read once, at import."""
