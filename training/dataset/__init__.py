"""Turns the archives into a data set: one conversation after the other, split by time, as text."""
