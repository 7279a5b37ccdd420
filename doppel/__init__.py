"""What training and the bot share: messages, the transcript, adapters, engines, the store, the command line.

Imports neither `training` nor `bot`; a test enforces it.
"""

__version__ = "0.1.0"
