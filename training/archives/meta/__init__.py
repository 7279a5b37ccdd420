"""Instagram and Facebook Messenger downloads."""
