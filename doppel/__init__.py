"""What training and the bot share: configuration, base models, the transcript, adapters, engines, the command line.

Imports neither `training` nor `bot`; a test enforces it.
"""

__version__ = "0.1.0"
