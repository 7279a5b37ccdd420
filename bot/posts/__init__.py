"""Posts of the persona's own accord, on a schedule."""
