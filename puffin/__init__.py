"""The worker: takes calculations out of a SCINE database, runs them and writes the results back."""

__version__ = "0.1.0"
