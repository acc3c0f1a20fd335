//! The other side: guest drivers, front ends, packet builders, the reference switch, fabnic-pktgen.
