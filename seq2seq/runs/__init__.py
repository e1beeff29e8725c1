"""What a run leaves behind: its folder, checkpoints, curves, figures and comparisons."""
