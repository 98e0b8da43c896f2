"""The promotion loop on this machine: the same decisions as in a cluster, with processes in place of pods."""
