"""Audits of this build in a simulated federation: what is computed from the released sums is in `privacy.audit`."""
