"""The model families and the contract they keep."""
