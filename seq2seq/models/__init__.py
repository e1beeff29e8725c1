"""The models: configurations (`*_config`), interface (`base`), layers, and the families `gru` and `transformer`."""
