"""Starting a run's processes, here or under somebody else's launcher, and bringing it to its end."""
