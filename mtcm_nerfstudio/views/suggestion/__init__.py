"""Poses from which a capture should have been photographed as well."""
