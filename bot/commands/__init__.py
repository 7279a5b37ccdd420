"""Commands of the bot side: `doppel run`."""
