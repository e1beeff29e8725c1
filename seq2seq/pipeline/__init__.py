"""The body of each command, from its configuration to its results; only this layer reads the whole configuration."""
