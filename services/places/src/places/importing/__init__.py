"""Imports of open data, and the export: files on one side, places on the other."""
