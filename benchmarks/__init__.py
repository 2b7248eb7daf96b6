"""minibert beside its peers: speed, on the same text."""
