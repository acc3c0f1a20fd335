//! The smallest device there is, for a VM of yours: a register that keeps what is written to it.
//!
//! ```sh
//! cargo run -p fabnic-vfio-user --example scratch /tmp/scratch.sock
//! qemu-system-x86_64 ... -object memory-backend-memfd,id=mem,size=512M,share=on -machine q35,memory-backend=mem \
//!     -device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"/tmp/scratch.sock"}}'
//! ```

use std::sync::Arc;

use fabnic_memory::Map;
use fabnic_pci::{Bar, Description, Express, Function, Interrupts, Msix, Pin, Reset};
use fabnic_vfio_user::{Endpoint, Reactor, Settings};

struct Scratch {
    description: Description,
    interrupts: Option<Arc<dyn Interrupts>>,
    scratch: [u8; 8],
}

impl Function for Scratch {
    fn description(&self) -> &Description {
        &self.description
    }

    fn attach(&mut self, interrupts: Arc<dyn Interrupts>) {
        println!("a VMM came");
        self.interrupts = Some(interrupts);
    }

    fn set_memory(&mut self, memory: Option<Arc<Map>>) {
        println!("memory: {:?} bytes", memory.map(|map| map.bytes()));
    }

    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        println!("read {} bytes at {offset:#x} of BAR {bar}", data.len());
        data.fill(0);
        let from = self.scratch.iter().skip(usize::try_from(offset).unwrap_or(8));
        data.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
    }

    fn write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        println!("write {data:02x?} at {offset:#x} of BAR {bar}");
        let to = self.scratch.iter_mut().skip(usize::try_from(offset).unwrap_or(8));
        to.zip(data).for_each(|(to, from)| *to = *from);
        // Writing at 8 interrupts: the line goes up and down with bit 0, and so does vector 0.
        if let (8, Some(level), Some(interrupts)) = (offset, data.first(), &self.interrupts) {
            interrupts.intx(level & 1 == 1);
            interrupts.msix(0);
        }
    }

    fn reset(&mut self, reset: Reset) {
        println!("reset: {reset:?}");
        self.scratch = [0; 8];
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let socket = std::env::args_os().nth(1).ok_or("which socket?")?;
    let mut bars = [Bar::None; 6];
    bars[0] = Bar::Memory32 { size: 4096, prefetchable: false };
    bars[1] = Bar::Memory32 { size: 8192, prefetchable: false };
    let function = Scratch {
        description: Description {
            id: (0x1af4, 0x1110),
            subsystem: (0x1af4, 0x1100),
            class: 0xff_0000,
            revision: 1,
            pin: Pin::A,
            bars,
            msix: Some(Msix { vectors: 1, table: (1, 0), pending: (1, 0x1000) }),
            express: Some(Express { flr: true }),
            power: true,
            serial: None,
        },
        interrupts: None,
        scratch: [0; 8],
    };
    let reactor = Reactor::spawn()?;
    let endpoint = Endpoint { name: "scratch".into(), socket: socket.into(), settings: Settings::default() };
    let handle = reactor.add(endpoint, Box::new(function))?;
    println!("serving {}; the end of input ends it", handle.socket().display());
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    println!("{:#?}", handle.status());
    Ok(())
}
