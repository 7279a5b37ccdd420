"""Chat services to run the bot against, on this machine and with schemas that other people wrote."""
