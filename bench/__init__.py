"""Measures, compares, reports."""
