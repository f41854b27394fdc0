"""Speed measured side by side with a peer in one run; figures go into ``docs/benchmarks.md``."""
