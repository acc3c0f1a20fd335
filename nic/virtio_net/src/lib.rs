//! The virtio-net model: features, queues of a port.

mod config_space;
mod features;
mod model;
mod queue;
mod receive;
mod transmit;

#[cfg(test)]
mod tests;

pub use features::Features;
pub use model::{NicSettings, OnRarp, Told, VirtioNet, VirtioNetConfig};
pub use queue::{QueueControl, QueueSetup, open_receive, open_transmit, receive_control, transmit_control};
pub use receive::Receive;
pub use transmit::Transmit;
