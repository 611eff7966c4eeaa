"""`callboard demo`: the main task on real input, with a worker killed in the middle."""
