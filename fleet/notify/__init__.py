"""Telling commands and webhooks of what happens."""
