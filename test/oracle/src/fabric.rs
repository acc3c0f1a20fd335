//! Ports that hand in what a test gives them and keep what they get, and the switch without threads between them.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use fabnic_memory::{Hint, Map};
use fabnic_port::{Burst, Egress, Fault, Ingress, Port, PortId, PortKind, Tally};
use fabnic_switch::{InlineSwitch, Policy, PortSettings, SwitchConfig};

type Frames = Arc<Mutex<VecDeque<Vec<u8>>>>;

/// Puts one frame into a burst, as if a guest had sent it from `map`.
pub(crate) fn load(burst: &mut Burst, map: &Arc<Map>, frame: &[u8]) -> Result<()> {
    burst.begin(map);
    let len = u32::try_from(frame.len()).context("a frame of 4 GiB")?;
    let slice = map.translate(0, len + 12, &mut Hint::default()).context("a frame longer than the memory")?;
    map.write(&slice, 12, frame);
    burst.slices_mut().push(slice);
    burst.push(0, 1, 12, len).context("a burst without room")?;
    Ok(())
}

/// The whole bytes of a frame of a burst.
pub(crate) fn bytes(burst: &Burst, index: usize) -> Vec<u8> {
    let len = burst.frames().get(index).map_or(0, |frame| frame.len() as usize);
    let mut bytes = vec![0; len];
    burst.copy_out(index, &mut bytes);
    bytes
}

struct Source {
    waiting: Frames,
    map: Arc<Map>,
}

impl Ingress for Source {
    fn backlog(&mut self) -> usize {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn receive(&mut self, burst: &mut Burst) -> Result<(), Fault> {
        let frame = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match frame {
            Some(frame) => load(burst, &self.map, &frame).map_err(|error| Fault(error.to_string())),
            None => Ok(()),
        }
    }

    fn complete(&mut self, _burst: &Burst) -> u32 {
        0
    }

    fn arm(&mut self) -> bool {
        false
    }

    fn disarm(&mut self) {}

    fn wake(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

struct Sink(Frames);

impl Egress for Sink {
    fn deliver(&mut self, burst: &mut Burst, picks: &[u8], tally: &mut Tally) -> Result<(), Fault> {
        for &pick in picks {
            let bytes = bytes(burst, pick.into());
            tally.deliver(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(bytes);
        }
        Ok(())
    }
}

/// The switch with its ports.
#[derive(Debug)]
pub struct Fabric {
    /// The switch.
    pub switch: InlineSwitch,
    /// Its ports.
    pub ports: Vec<Arc<Port>>,
    waiting: Vec<Frames>,
    got: Vec<Frames>,
}

impl Fabric {
    /// A switch with a port for each of the settings.
    ///
    /// # Errors
    /// If there is no memory for frames.
    pub fn new(config: &SwitchConfig, settings: Vec<PortSettings>) -> Result<Fabric> {
        Fabric::with_policy(config, settings, Policy::default())
    }

    /// The same with what is not of one port.
    ///
    /// # Errors
    /// If there is no memory for frames.
    pub fn with_policy(config: &SwitchConfig, settings: Vec<PortSettings>, policy: Policy) -> Result<Fabric> {
        let mut fabric = Fabric {
            switch: InlineSwitch::new(config),
            ports: Vec::new(),
            waiting: Vec::new(),
            got: Vec::new(),
        };
        for (id, _) in (0..).zip(&settings) {
            let port = Arc::new(Port::new(PortId(id), &format!("p{id}"), PortKind::Loopback, 1));
            let (waiting, got) = (Frames::default(), Frames::default());
            let (map, _) = Map::anonymous(1 << 17).context("no memory for frames")?;
            if let (Some(ingress), Some(egress)) = (port.ingress().first(), port.egress().first()) {
                ingress.install(Box::new(Source { waiting: Arc::clone(&waiting), map }));
                egress.install(Box::new(Sink(Arc::clone(&got))));
            }
            port.refresh_egress();
            fabric.ports.push(port);
            fabric.waiting.push(waiting);
            fabric.got.push(got);
        }
        fabric.switch.configure(fabric.ports.iter().cloned().zip(settings).collect(), policy);
        Ok(fabric)
    }

    /// Sends a frame from a port; gives what each port got.
    ///
    /// # Errors
    /// If there is no such port, or it has a fault.
    pub fn send(&mut self, port: usize, frame: &[u8]) -> Result<Vec<Vec<Vec<u8>>>> {
        let waiting = self.waiting.get(port).context("no such port")?;
        waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back(frame.to_vec());
        let id = self.ports.get(port).context("no such port")?.id;
        self.switch.poll(id, 0)?;
        let take = |got: &Frames| got.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
        Ok(self.got.iter().map(take).collect())
    }
}
