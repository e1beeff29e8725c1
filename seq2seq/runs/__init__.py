"""Run folders: checkpoints, logs, plots, tables and comparisons."""
