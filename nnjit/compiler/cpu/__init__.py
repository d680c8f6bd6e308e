"""The CPU dialect: groups become serial-chunk kernels over flat pointers (text), and launches of
them.
"""
