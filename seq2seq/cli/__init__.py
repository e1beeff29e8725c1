"""The command line interface; no other part of the package reads the command line."""
