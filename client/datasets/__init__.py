"""A site's data folder: read by its contract, checked, hashed, registered, and looked at again before every round."""
