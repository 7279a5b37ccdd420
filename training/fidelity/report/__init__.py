"""The outcome of an examination for people: terminal table and page sections."""
