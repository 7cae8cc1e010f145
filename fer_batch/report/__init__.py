"""What a run leaves for people: summary, timelines, contact sheets."""
