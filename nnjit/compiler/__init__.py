"""From a Graph to a Plan: passes, fusion, lowering to kernels, emitted source, memory. `pipeline`
shows it all.
"""
