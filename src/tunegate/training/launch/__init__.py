"""Starting a run's processes, here or under another launcher, and bringing it to its end."""
