"""The rules of a site's policy: what each allows, and what it says when it refuses."""
