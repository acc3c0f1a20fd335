//! Guest memory: maps it from file descriptors and gives the rest of the house safe ways to reach it.
