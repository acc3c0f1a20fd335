//! A driver for the Intel 82540EM: the guest's half of a fabricated e1000.
//!
//! ```text
//!   Driver        probe, up, down, interrupts, frames in and out
//!     |    \
//!   nvm     rings           EEPROM and PHY as Linux and iPXE reach them / descriptors
//!     |    /
//!   Registers               whatever carries register accesses: a model in this process, a vfio-user client
//! ```
//!
//! It knows the part from its data sheet and not from the model that it tests: numbers are written down once more here.
//! What the device claims is checked against what it was given ([`DriverError`]).

use fabnic_memory::{Slice, Table};

use crate::memory::{GuestMemory, MemoryError};

pub mod nvm;
mod rings;

pub use rings::{Ask, Place, Received};

/// Register accesses of a driver.
pub trait Registers {
    /// Reads from a BAR.
    fn read(&mut self, bar: u8, offset: u64, data: &mut [u8]);
    /// Writes to a BAR.
    fn write(&mut self, bar: u8, offset: u64, data: &[u8]);
    /// Lets so much time pass.
    fn wait(&mut self, nanoseconds: u64);

    /// Reads a register of BAR 0.
    fn get(&mut self, register: u32) -> u32 {
        let mut data = [0; 4];
        self.read(0, register.into(), &mut data);
        u32::from_le_bytes(data)
    }

    /// Writes a register of BAR 0.
    fn set(&mut self, register: u32, value: u32) {
        self.write(0, register.into(), &value.to_le_bytes());
    }
}

/// Register offsets and bits that tests need too.
pub mod reg {
    #![allow(missing_docs, reason = "the data sheet's names")]
    pub const CTRL: u32 = 0x0000;
    pub const STATUS: u32 = 0x0008;
    pub const EECD: u32 = 0x0010;
    pub const EERD: u32 = 0x0014;
    pub const MDIC: u32 = 0x0020;
    pub const VET: u32 = 0x0038;
    pub const ICR: u32 = 0x00c0;
    pub const ITR: u32 = 0x00c4;
    pub const ICS: u32 = 0x00c8;
    pub const IMS: u32 = 0x00d0;
    pub const IMC: u32 = 0x00d8;
    pub const RCTL: u32 = 0x0100;
    pub const TCTL: u32 = 0x0400;
    pub const TIPG: u32 = 0x0410;
    pub const RDBAL: u32 = 0x2800;
    pub const RDBAH: u32 = 0x2804;
    pub const RDLEN: u32 = 0x2808;
    pub const RDH: u32 = 0x2810;
    pub const RDT: u32 = 0x2818;
    pub const RDTR: u32 = 0x2820;
    pub const RADV: u32 = 0x282c;
    pub const TDBAL: u32 = 0x3800;
    pub const TDBAH: u32 = 0x3804;
    pub const TDLEN: u32 = 0x3808;
    pub const TDH: u32 = 0x3810;
    pub const TDT: u32 = 0x3818;
    pub const TIDV: u32 = 0x3820;
    pub const MPC: u32 = 0x4010;
    pub const GPRC: u32 = 0x4074;
    pub const GPTC: u32 = 0x4080;
    pub const RNBC: u32 = 0x40a0;
    pub const ROC: u32 = 0x40ac;
    pub const RXCSUM: u32 = 0x5000;
    pub const MTA: u32 = 0x5200;
    pub const RAL: u32 = 0x5400;
    pub const RAH: u32 = 0x5404;
    pub const VFTA: u32 = 0x5600;

    pub const CTRL_SLU: u32 = 1 << 6;
    pub const CTRL_RST: u32 = 1 << 26;
    pub const CTRL_VME: u32 = 1 << 30;
    pub const CTRL_PHY_RST: u32 = 1 << 31;
    pub const STATUS_LU: u32 = 1 << 1;
    pub const RCTL_EN: u32 = 1 << 1;
    pub const RCTL_UPE: u32 = 1 << 3;
    pub const RCTL_MPE: u32 = 1 << 4;
    pub const RCTL_LPE: u32 = 1 << 5;
    pub const RCTL_LBM_MAC: u32 = 1 << 6;
    pub const RCTL_BAM: u32 = 1 << 15;
    pub const RCTL_VFE: u32 = 1 << 18;
    pub const RCTL_BSEX: u32 = 1 << 25;
    pub const RCTL_SECRC: u32 = 1 << 26;
    pub const TCTL_EN: u32 = 1 << 1;
    pub const TCTL_PSP: u32 = 1 << 3;
    pub const ICR_TXDW: u32 = 1 << 0;
    pub const ICR_TXQE: u32 = 1 << 1;
    pub const ICR_LSC: u32 = 1 << 2;
    pub const ICR_RXDMT0: u32 = 1 << 4;
    pub const ICR_RXO: u32 = 1 << 6;
    pub const ICR_RXT0: u32 = 1 << 7;
}

/// What a device did that it must not, or what the guest lacks.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The EEPROM's words do not add up.
    #[error("the EEPROM adds up to {0:#06x}, expected 0xbaba")]
    Checksum(u16),
    /// A way to read the EEPROM gives something else than the other.
    #[error("EEPROM word {word}: {wires:#06x} by its wires, {register:#06x} by EERD")]
    Disagree {
        /// Which.
        word: u8,
        /// By EECD.
        wires: u16,
        /// By EERD.
        register: u16,
    },
    /// Not the PHY of this part.
    #[error("PHY {0:#010x}, expected 0x01410c2x")]
    Phy(u32),
    /// An MDI access failed.
    #[error("MDI: register {0} cannot be reached")]
    Mdi(u8),
    /// A reset that does not end.
    #[error("CTRL.RST stays set")]
    Reset,
    /// A descriptor that was not given, or a head beyond the tail.
    #[error("{ring} head {head}: descriptors {from} to {to} are the device's")]
    Head {
        /// Of which ring.
        ring: &'static str,
        /// What the register says.
        head: u32,
        /// First that it may be at.
        from: u32,
        /// Last that it may be at.
        to: u32,
    },
    /// More bytes than the buffer has.
    #[error("receive descriptor {at}: {len} bytes in a buffer of {room}")]
    TooLong {
        /// Which.
        at: u32,
        /// Its claim.
        len: u16,
        /// The room.
        room: u32,
    },
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

/// How the rings are to be.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Transmit descriptors, a multiple of 8.
    pub transmit: u32,
    /// Receive descriptors, a multiple of 8.
    pub receive: u32,
    /// Bytes of a receive buffer: 256 to 16384, a power of two.
    pub buffer: u32,
    /// Bytes that frames in flight may have together.
    pub arena: u32,
    /// More bits of RCTL.
    pub rctl: u32,
    /// More bits of CTRL.
    pub ctrl: u32,
    /// RXCSUM.
    pub rxcsum: u32,
}

impl Default for Layout {
    fn default() -> Layout {
        Layout {
            transmit: 256,
            receive: 256,
            buffer: 2048,
            arena: 1 << 20,
            rctl: reg::RCTL_BAM,
            ctrl: 0,
            rxcsum: 0x300,
        }
    }
}

impl Layout {
    /// BSIZE and BSEX for the buffer.
    fn buffer_bits(&self) -> u32 {
        match self.buffer {
            1024 => 1 << 16,
            512 => 2 << 16,
            256 => 3 << 16,
            16384 => 1 << 16 | reg::RCTL_BSEX,
            8192 => 2 << 16 | reg::RCTL_BSEX,
            4096 => 3 << 16 | reg::RCTL_BSEX,
            _ => 0,
        }
    }
}

/// A driver of one device.
#[derive(Debug)]
pub struct Driver<R> {
    /// The device.
    pub registers: R,
    memory: GuestMemory,
    mac: [u8; 6],
    layout: Layout,
    transmit: rings::TransmitRing,
    receive: rings::ReceiveRing,
}

/// A ring's memory.
#[derive(Debug)]
struct RingMemory {
    addr: u64,
    descriptors: Table<[u64; 2]>,
    buffers: u64,
    slice: Slice,
}

impl<R: Registers> Driver<R> {
    /// Finds the device as Linux does: reset through the I/O BAR, EEPROM by its wires, PHY. Then sets up what `layout`
    /// says, but does not begin.
    pub fn probe(
        mut registers: R,
        mut memory: GuestMemory,
        layout: Layout,
    ) -> Result<Driver<R>, DriverError> {
        reset(&mut registers)?;
        let words = nvm::read_all(&mut registers)?;
        let mut mac = [0; 6];
        for (bytes, word) in mac.chunks_mut(2).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        nvm::find_phy(&mut registers)?;
        let transmit = rings::TransmitRing::new(&mut memory, &layout)?;
        let receive = rings::ReceiveRing::new(&mut memory, &layout)?;
        Ok(Driver { registers, memory, mac, layout, transmit, receive })
    }

    /// The address that the EEPROM has.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// What was asked for.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Resets, programs everything, and enables both directions: the order of Linux's `e1000_up`.
    pub fn up(&mut self) -> Result<(), DriverError> {
        reset(&mut self.registers)?;
        let layout = self.layout;
        let registers = &mut self.registers;
        let ctrl = registers.get(reg::CTRL);
        registers.set(reg::CTRL, ctrl | reg::CTRL_SLU | layout.ctrl);
        registers.set(reg::VET, 0x8100);
        let [a, b, c, d, e, f] = self.mac;
        registers.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        registers.set(reg::RAH, 1 << 31 | u32::from_le_bytes([e, f, 0, 0]));
        for word in 0..128 {
            registers.set(reg::MTA + 4 * word, 0);
        }
        self.transmit.reset();
        self.receive.reset(&self.memory, &layout)?;
        let program = |registers: &mut R, at: u32, addr: u64, count: u32| {
            registers.set(at, (addr & 0xffff_ffff) as u32);
            registers.set(at + 4, (addr >> 32) as u32);
            registers.set(at + 8, 16 * count);
            registers.set(at + 0x10, 0);
            registers.set(at + 0x18, 0);
        };
        program(registers, reg::TDBAL, self.transmit.addr(), layout.transmit);
        registers.set(reg::TIPG, 0x0060_200a);
        registers.set(reg::TCTL, reg::TCTL_EN | reg::TCTL_PSP | 0xf << 4 | 0x40 << 12);
        program(registers, reg::RDBAL, self.receive.addr(), layout.receive);
        registers.set(reg::RXCSUM, layout.rxcsum);
        registers.set(reg::RCTL, reg::RCTL_EN | layout.rctl | layout.buffer_bits());
        registers.set(reg::RDT, layout.receive - 1);
        registers.set(reg::IMS, reg::ICR_TXDW | reg::ICR_LSC | reg::ICR_RXDMT0 | reg::ICR_RXT0);
        Ok(())
    }

    /// Stops both directions.
    pub fn down(&mut self) {
        let rctl = self.registers.get(reg::RCTL);
        self.registers.set(reg::RCTL, rctl & !reg::RCTL_EN);
        let tctl = self.registers.get(reg::TCTL);
        self.registers.set(reg::TCTL, tctl & !reg::TCTL_EN);
        self.registers.set(reg::IMC, u32::MAX);
    }

    /// What an interrupt handler does: the causes, which are cleared by it.
    pub fn interrupt(&mut self) -> u32 {
        self.registers.get(reg::ICR)
    }

    /// Queues a frame, in pieces cut at these places; `false` if there is no room. [`Driver::kick`] shows it to the device.
    pub fn send(&mut self, frame: &[u8], cuts: &[usize], ask: &Ask) -> bool {
        self.transmit.add(&self.memory, frame, cuts, ask)
    }

    /// Writes a descriptor as it is.
    pub fn send_raw(&mut self, words: [u64; 2]) -> bool {
        self.transmit.add_raw(words)
    }

    /// Moves the transmit tail behind all that was queued.
    pub fn kick(&mut self) {
        self.registers.set(reg::TDT, self.transmit.tail());
    }

    /// Takes back what was sent. Gives the descriptors that the device still has.
    pub fn reap(&mut self) -> Result<u32, DriverError> {
        let head = self.registers.get(reg::TDH);
        self.transmit.reap(head)
    }

    /// Fills the transmit ring with packets of one length, to be sent with [`Driver::repeat`]: `frame` gives them by number,
    /// each is cut in `pieces` at least. Gives how many there are.
    pub fn prepare(&mut self, ask: &Ask, pieces: u32, frame: impl FnMut(u32) -> Vec<u8>) -> u32 {
        self.transmit.prepare(&self.memory, ask, pieces, frame)
    }

    /// Sends packets of [`Driver::prepare`] that are done once more, in groups, until there are `most` or none.
    pub fn repeat(&mut self, most: u32) -> u32 {
        let sent = self.transmit.repeat(most);
        if sent > 0 {
            self.kick();
        }
        sent
    }

    /// Takes frames, up to `most` and if there are at least `gather`, reads the first bytes of each and gives their buffers
    /// back at once. Gives how many, and their bytes with FCS.
    pub fn recycle(&mut self, gather: u32, most: u32) -> (u64, u64) {
        let (frames, bytes, tail) = self.receive.recycle(&self.memory, &self.layout, gather, most);
        if let Some(tail) = tail {
            self.registers.set(reg::RDT, tail);
        }
        (frames, bytes)
    }

    /// Takes the frames that have arrived, and gives their buffers back.
    pub fn receive(&mut self) -> Result<Vec<Received>, DriverError> {
        let (frames, tail) = self.receive.take(&self.memory, &self.layout)?;
        if let Some(tail) = tail {
            self.registers.set(reg::RDT, tail);
        }
        Ok(frames)
    }
}

/// CTRL.RST, written through the I/O BAR as Linux does for this part, and seen to end.
pub fn reset<R: Registers>(registers: &mut R) -> Result<(), DriverError> {
    registers.set(reg::IMC, u32::MAX);
    registers.set(reg::RCTL, 0);
    registers.set(reg::TCTL, reg::TCTL_PSP);
    let ctrl = registers.get(reg::CTRL);
    registers.write(1, 0, &reg::CTRL.to_le_bytes());
    registers.write(1, 4, &(ctrl | reg::CTRL_RST).to_le_bytes());
    registers.wait(5_000_000);
    if registers.get(reg::CTRL) & reg::CTRL_RST != 0 {
        return Err(DriverError::Reset);
    }
    registers.set(reg::IMC, u32::MAX);
    registers.get(reg::ICR);
    Ok(())
}
