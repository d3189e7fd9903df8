"""What computations run on: devices, threads, memory and random numbers."""
