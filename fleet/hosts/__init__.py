"""hosts.yaml, what it says of each host, and what follows: layouts, the workers' files, connections."""
