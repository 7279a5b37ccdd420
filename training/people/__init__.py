"""Who is the owner, and who are the contacts."""
