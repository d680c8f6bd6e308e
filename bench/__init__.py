"""Benchmarks: training steps and predictions beside PyTorch, JAX and ONNX Runtime, memory, growth,
start-up times, and the comparison of two results.
"""
