"""The study's code in a process of its own, without the site's keys, its ledger or a network."""
