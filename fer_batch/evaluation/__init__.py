"""Classifiers measured on labelled pictures and videos."""
