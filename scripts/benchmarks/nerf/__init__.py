"""Parts of scripts/benchmark_nerf.py: how much better a NeRF becomes."""
