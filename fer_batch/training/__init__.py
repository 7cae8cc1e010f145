"""Training of classifiers, and comparison of many settings."""
