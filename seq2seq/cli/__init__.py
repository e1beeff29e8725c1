"""How the package is run: the only place that reads the command line."""
