"""The run folder: its only writer, its journal and lock, and what brings it back after a crash."""
