"""Signal: signal-export's folders, and the app's own backup frames."""
