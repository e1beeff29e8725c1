"""The models: what they are made from (`*_config`), the contract (`base`), their parts, and the families."""
