"""Deploys: what is to change, under whose lock, in which order, until when, and the way back."""
