"""The `doppel` command and the commands that belong to neither training nor the bot."""
