"""Search: from a source and trained models to the best target sequences (ids in, ids out)."""
