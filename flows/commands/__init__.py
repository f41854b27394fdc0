"""What the words of the command line do: each function takes settings and options and returns an outcome."""
