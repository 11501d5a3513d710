"""Parts of scripts/benchmark_views.py: which views are chosen, and which are found missing."""
