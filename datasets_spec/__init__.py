"""Datasets: what they consist of, and how raw files become verified interaction tables. No torch."""
