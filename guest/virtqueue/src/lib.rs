//! Device side of split and packed virtqueues, in bursts.
