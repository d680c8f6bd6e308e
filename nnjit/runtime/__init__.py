"""Running compiled kernels: cache and workers make machine code, a driver walks a table.

Nothing here knows graphs, layers or plans. A kernel comes in as text (`cache.KernelSource`), a
whole step as a table of rows (`driver.Program`). Importing this package imports neither numba nor
llvmlite.
"""
