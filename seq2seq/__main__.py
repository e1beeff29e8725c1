"""Runs the command line: `python -m seq2seq` is the same program as `seq2seq`, also under `torchrun`."""

from seq2seq.cli.main import main

if __name__ == "__main__":
    main()
