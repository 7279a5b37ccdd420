"""Searches: training settings by `doppel tune`, sampling settings by `doppel evaluate --tune-sampling`."""
