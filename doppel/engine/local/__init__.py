"""The default engine: a transformers model on a thread of this process."""
