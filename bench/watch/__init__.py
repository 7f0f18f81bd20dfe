"""What the machine did while something was timed: its clock, its heat, its other processes and the energy it took."""
