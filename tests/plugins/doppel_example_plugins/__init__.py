"""One plug-in of each kind: an archive reader, a platform, an engine and a command."""
