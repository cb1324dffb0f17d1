"""What is done with a plan outside of a search: recipes trained, models evaluated, measured and converted."""
