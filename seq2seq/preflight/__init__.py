"""What `seq2seq check` looks at before training: machine, data, memory, speed."""
