"""Runtime settings: devices, threads, memory and random numbers."""
