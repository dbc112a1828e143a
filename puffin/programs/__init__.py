"""The programs that jobs use: how each is installed, found, checked and made known to SCINE.

One small module per program; :mod:`puffin.programs.catalogue` has them all.
"""
