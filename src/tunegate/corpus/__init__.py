"""From seeds to a corpus to train on: a teacher model generalises, answers and judges, and people decide the rest."""
