"""Who belongs to a federation, from when until when: documents that its root signs, and requests to be let in."""
