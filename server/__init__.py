"""The coordination server: sums it cannot look into, strategies that need no more. Never imports torch."""
