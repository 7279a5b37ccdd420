"""Measures how much an adapter writes like its owner, on messages of the owner that it was not trained on.

Every metric has a confidence interval, a floor (another person, or the base model with a prompt) and, where one exists,
a ceiling (the owner's earlier messages compared with their later ones).
"""
