"""Benchmarks: training steps beside PyTorch, start-up times, and the comparison of two results."""
