"""Ways to get the sampled frames out of a video file: one module per decoder, each with ``read(path, n=, fps=)``."""
