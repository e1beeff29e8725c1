"""The programs: each command from its configuration to its results; they alone know all of it."""
