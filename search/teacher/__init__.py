"""The teacher of a run: made once from a backbone or taken as it is, and what is computed from it once."""
