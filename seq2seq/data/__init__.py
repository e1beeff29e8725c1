"""Reads corpora and turns them into token stores."""
