"""Emotion classifiers: networks, weights with their cards, inference."""
