"""A model in use, watched over windows of new persons: what is asked, what it shows, what is done about it."""
