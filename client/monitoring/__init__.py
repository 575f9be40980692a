"""A site's part in watching a model: its past, its windows, and exact tests that stay with it."""
