"""Reaching hosts: connections, one action on one or many of them, and what they reply."""
