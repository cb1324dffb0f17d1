"""Reading a run: fronts, picks, figures, the report, and export of recipes; pandas alone, no training code."""
