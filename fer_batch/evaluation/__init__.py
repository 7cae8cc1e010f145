"""Evaluation of classifiers on labelled pictures and videos."""
