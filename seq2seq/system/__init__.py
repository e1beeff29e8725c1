"""The interface to the machine: devices, processes, signals, files, log messages."""
