//! Live migration (version 2) and the dirty log: not offered yet.

use fabnic_pci::Function;

use crate::dma::Windows;
use crate::error::Refusal;
use crate::fields::Payload;
use crate::message::Feature;

#[derive(Debug, Default)]
pub(crate) struct Migration {}

impl Migration {
    pub(crate) fn feature(
        &mut self,
        _function: &mut dyn Function,
        _windows: &Windows,
        feature: Feature,
    ) -> Result<Payload, Refusal> {
        Err(Refusal::invalid(format!("feature {}", feature.index), "a feature that this device has"))
    }

    pub(crate) fn read(&mut self, _size: u32) -> Result<Payload, Refusal> {
        Err(Refusal::invalid("reading a state", "a state that is offered"))
    }

    pub(crate) fn write(&mut self, _data: &[u8]) -> Result<(), Refusal> {
        Err(Refusal::invalid("writing a state", "a state that is taken"))
    }

    pub(crate) fn was_reset(&mut self) {}

    pub(crate) fn end(&mut self, _function: &mut dyn Function) {}

    pub(crate) fn is_logging(&self) -> bool {
        false
    }
}
