"""The checks of `seq2seq check` before training: machine, data, memory, speed."""
