"""`python -m seq2seq` is the command `seq2seq`; `torchrun -m seq2seq` starts several of it."""

from seq2seq.cli.main import main

if __name__ == "__main__":
    main()
