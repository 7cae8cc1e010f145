"""Classifiers trained, and many settings compared."""
