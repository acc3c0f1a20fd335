//! The PHY: a Marvell M88E1011 at address 1 of the MDI (SDM 13.4.7.1; IEEE 802.3, clause 22).

/// Its address.
pub const ADDRESS: u32 = 1;
/// Registers of a PHY.
pub const REGISTERS: usize = 32;

/// Control (BMCR).
pub const CONTROL: usize = 0;
/// Status (BMSR).
pub const STATUS: usize = 1;
/// Identifier, upper half.
pub const ID1: usize = 2;
/// Identifier, lower half.
pub const ID2: usize = 3;
/// What is advertised.
pub const ADVERTISE: usize = 4;
/// What the partner can do.
pub const PARTNER: usize = 5;
/// 1000BASE-T control.
pub const CONTROL_1000T: usize = 9;
/// 1000BASE-T status.
pub const STATUS_1000T: usize = 10;
/// Extended status.
pub const EXTENDED_STATUS: usize = 15;
/// M88 control.
pub const M88_CONTROL: usize = 16;
/// M88 status.
pub const M88_STATUS: usize = 17;
/// M88 extended control.
pub const M88_EXTENDED_CONTROL: usize = 20;

/// Control: reset; clears itself.
pub const CONTROL_RESET: u16 = 1 << 15;
/// Control: what is sent comes back.
pub const CONTROL_LOOPBACK: u16 = 1 << 14;
/// Control: autonegotiation.
pub const CONTROL_AUTONEG: u16 = 1 << 12;
/// Control: power down.
pub const CONTROL_POWER_DOWN: u16 = 1 << 11;
/// Control: isolated from the MAC.
pub const CONTROL_ISOLATE: u16 = 1 << 10;
/// Control: negotiates anew; clears itself.
pub const CONTROL_RESTART: u16 = 1 << 9;
/// Control after reset: autonegotiation, full duplex, 1000 Mbit/s.
pub const CONTROL_DEFAULT: u16 = 0x1140;

/// Status without what the link says: all of 10 and 100 Mbit/s, extended status, preamble suppression, autonegotiation,
/// extended registers.
pub const STATUS_ABILITIES: u16 = 0x7949;
/// Status: link.
pub const STATUS_LINK: u16 = 1 << 2;
/// Status: autonegotiation is complete.
pub const STATUS_COMPLETE: u16 = 1 << 5;

/// Marvell.
pub const ID1_VALUE: u16 = 0x0141;
/// M88E1011, revision 4 of its kind.
pub const ID2_VALUE: u16 = 0x0c20;
/// What is advertised after reset.
pub const ADVERTISE_DEFAULT: u16 = 0x0de1;
/// What the partner says: all of 10 and 100 Mbit/s, no pause, acknowledged.
pub const PARTNER_VALUE: u16 = 0x41e1;
/// 1000BASE-T control after reset.
pub const CONTROL_1000T_DEFAULT: u16 = 0x0e00;
/// 1000BASE-T status with a partner: both receivers are well, it can do both duplex modes.
pub const STATUS_1000T_VALUE: u16 = 0x3c00;
/// Extended status: 1000BASE-T, both duplex modes.
pub const EXTENDED_STATUS_VALUE: u16 = 0x3000;
/// M88 control after reset.
pub const M88_CONTROL_DEFAULT: u16 = 0x0360;
/// M88 status with a link: 1000 Mbit/s, full duplex, resolved, link.
pub const M88_STATUS_LINK: u16 = 0xac00;
/// M88 extended control after reset.
pub const M88_EXTENDED_CONTROL_DEFAULT: u16 = 0x0d60;
