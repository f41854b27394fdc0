"""Diffusion as plain functions on one immutable table.

Time runs over indices ``t = 0 .. T-1`` and index 0 carries the least noise: the ``t`` of the papers (1..T, with
``alpha_bar_0 = 1``) is index ``t - 1`` here.
"""
