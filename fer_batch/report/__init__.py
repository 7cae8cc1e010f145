"""A run for people: summary, contact sheets, plots of its timelines."""
