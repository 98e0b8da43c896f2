"""Decision records: written and signed when a promotion ends, verified from training to what serves, and shown."""
