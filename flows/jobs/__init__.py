"""The work itself, without Prefect: the command line calls it directly, the flows wrap it in tasks."""
