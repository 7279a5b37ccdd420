"""Is it them? Measures how much an adapter writes like its owner, on messages of the owner's that it has never seen.

Every figure comes with an interval, a floor (another author, or the base model with a prompt) and, where there is
one, a ceiling (the owner's own past against their own future). Knows adapters and data sets; publishes nothing.
"""
