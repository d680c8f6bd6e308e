"""All benchmarks: python -m bench [options of bench.steps]; then the start-up times."""

import sys

from bench import startup, steps

steps.main()
sys.argv[1:] = []
startup.main()
