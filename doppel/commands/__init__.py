"""Commands that belong to neither side: chat, adapters, doctor."""
