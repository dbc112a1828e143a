"""What operators do with a deployed fleet: stop, start, restart, destroy, run commands."""
