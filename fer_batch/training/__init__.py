"""Training of classifiers, and sweeps over settings."""
