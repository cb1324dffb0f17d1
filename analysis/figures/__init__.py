"""Pictures of a run: per picture one pure function that returns its data, and one that draws it with plotly."""
