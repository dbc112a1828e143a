"""Calculations in and out: files of molecules, submissions, results."""
