"""How two ends find each other, keep each other, and wait for each other."""
