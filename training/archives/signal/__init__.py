"""Signal: chats from signal-export, and the app's own plain-text export."""
