"""The machine and what runs on it: device, processes, signals, files, messages."""
