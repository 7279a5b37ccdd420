"""Searches for settings: of training by `doppel tune`, of sampling by `doppel evaluate --tune-sampling`."""
