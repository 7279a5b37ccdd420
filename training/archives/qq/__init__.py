"""QQ: text and mht exports of the PC client, and qq-chat-exporter's JSON."""
