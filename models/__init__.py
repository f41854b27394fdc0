"""Recommenders, their parts, training and evaluation."""
