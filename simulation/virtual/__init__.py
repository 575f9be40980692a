"""Virtual time: how long a round would take on given devices and networks, computed and never waited for."""
