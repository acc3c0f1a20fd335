//! Makes the running daemon equal to the desired state.
