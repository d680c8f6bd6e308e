"""Running a Plan: kernels compiled and cached, the driver and its threads, memory, and the devices."""
