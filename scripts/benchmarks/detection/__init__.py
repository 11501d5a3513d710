"""The parts of benchmark_detection.py: trials with known faults, the methods that look for them, figures, tables."""
