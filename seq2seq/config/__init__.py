"""The whole configuration: its sections together, rules between their keys, and what each command takes besides."""
