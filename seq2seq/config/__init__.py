"""The whole configuration: its sections, the rules between their keys, and the keys of each command."""
