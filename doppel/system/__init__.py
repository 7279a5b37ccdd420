"""Files, locks, memory and retries: what the operating system provides, made safe to use."""
