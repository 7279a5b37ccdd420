"""An engine on a server that speaks OpenAI's completions protocol."""
