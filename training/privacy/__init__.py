"""Personal data is replaced by made-up values before anything is learned."""
