"""File formats and text conventions that several readers share."""
