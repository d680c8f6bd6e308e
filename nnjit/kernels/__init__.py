"""CPU kernels: the SIMD tile, vector math, and the templates that write kernel source around them.

Templates are text generators and import nothing heavy. `tile` and `math` are what the emitted files
import: compiled with Numba in a compile worker, plain NumPy everywhere else (so that
`device="python"` runs the same files).
"""
