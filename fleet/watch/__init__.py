"""Looking at a fleet: status, the live view, logs, what is collected, what is wrong."""
