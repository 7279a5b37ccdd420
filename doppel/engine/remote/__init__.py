"""An engine on a server with OpenAI's completions API."""
