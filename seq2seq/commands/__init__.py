"""What the verbs do that compute with torch, once their configuration has been read; `cli` reads it."""
