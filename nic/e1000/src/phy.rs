//! The PHY behind the MDI, and the link (SDM 13.4.7; IEEE 802.3, clauses 22 and 28).
//!
//! ```text
//!   carrier (configuration) --+
//!   power, isolate           -+--> negotiates for a while --> link
//!   reset, restart           -+         (forced: at once)
//! ```

use crate::spec::phy::{
    ADVERTISE, ADVERTISE_DEFAULT, CONTROL, CONTROL_1000T, CONTROL_1000T_DEFAULT, CONTROL_AUTONEG,
    CONTROL_DEFAULT, CONTROL_ISOLATE, CONTROL_LOOPBACK, CONTROL_POWER_DOWN, CONTROL_RESET, CONTROL_RESTART,
    EXTENDED_STATUS, EXTENDED_STATUS_VALUE, ID1, ID1_VALUE, ID2, ID2_VALUE, M88_CONTROL, M88_CONTROL_DEFAULT,
    M88_EXTENDED_CONTROL, M88_EXTENDED_CONTROL_DEFAULT, M88_STATUS, M88_STATUS_LINK, PARTNER, PARTNER_VALUE,
    REGISTERS, STATUS, STATUS_1000T, STATUS_1000T_VALUE, STATUS_ABILITIES, STATUS_COMPLETE, STATUS_LINK,
};

use crate::state::{Reader, StateError, Writer};

/// How long a negotiation takes. On copper it is seconds; nobody is served by waiting for them.
const NEGOTIATION: u64 = 50_000_000;

/// The PHY.
#[derive(Debug)]
pub(crate) struct Phy {
    registers: [u16; REGISTERS],
    /// Whether there is a partner.
    carrier: bool,
    link: bool,
    /// The link was down since the status was last read: it is shown once (clause 22.2.4.2.13).
    was_down: bool,
    /// When the negotiation is over.
    negotiating: Option<u64>,
    /// The reset wire is held.
    held: bool,
}

impl Phy {
    /// After power-on, its negotiation already over.
    pub(crate) fn new(carrier: bool) -> Phy {
        let mut phy = Phy {
            registers: [0; REGISTERS],
            carrier,
            link: false,
            was_down: false,
            negotiating: None,
            held: false,
        };
        phy.defaults();
        phy.link = carrier;
        phy
    }

    /// Power-on: the partner stays.
    pub(crate) fn power_on(&mut self) {
        *self = Phy::new(self.carrier);
    }

    pub(crate) fn save(&self, to: &mut Writer) {
        self.registers.iter().for_each(|register| to.u16(*register));
        for flag in [self.carrier, self.link, self.was_down, self.held, self.negotiating.is_some()] {
            to.flag(flag);
        }
    }

    /// Takes another's state. A negotiation begins anew: clocks differ. The partner is the other's; configuration says
    /// which there is here, afterwards.
    pub(crate) fn restore(&mut self, from: &mut Reader<'_>, now: u64) -> Result<(), StateError> {
        for register in &mut self.registers {
            *register = from.u16()?;
        }
        self.carrier = from.flag()?;
        self.link = from.flag()?;
        self.was_down = from.flag()?;
        self.held = from.flag()?;
        self.negotiating = from.flag()?.then_some(now.saturating_add(NEGOTIATION));
        Ok(())
    }

    /// Whether there is a partner.
    pub(crate) fn carrier(&self) -> bool {
        self.carrier
    }

    fn defaults(&mut self) {
        self.registers = [0; REGISTERS];
        for (register, value) in [
            (CONTROL, CONTROL_DEFAULT),
            (ID1, ID1_VALUE),
            (ID2, ID2_VALUE),
            (ADVERTISE, ADVERTISE_DEFAULT),
            (CONTROL_1000T, CONTROL_1000T_DEFAULT),
            (EXTENDED_STATUS, EXTENDED_STATUS_VALUE),
            (M88_CONTROL, M88_CONTROL_DEFAULT),
            (M88_EXTENDED_CONTROL, M88_EXTENDED_CONTROL_DEFAULT),
        ] {
            self.store(register, value);
        }
    }

    fn store(&mut self, register: usize, value: u16) {
        if let Some(place) = self.registers.get_mut(register) {
            *place = value;
        }
    }

    fn control(&self) -> u16 {
        self.registers.get(CONTROL).copied().unwrap_or(0)
    }

    /// Whether the link is up.
    pub(crate) fn link(&self) -> bool {
        self.link
    }

    /// Whether what is sent comes back.
    pub(crate) fn is_looped(&self) -> bool {
        self.control() & CONTROL_LOOPBACK != 0
    }

    /// When the state changes by itself.
    pub(crate) fn deadline(&self) -> Option<u64> {
        self.negotiating
    }

    fn may_have_link(&self) -> bool {
        self.carrier && !self.held && self.control() & (CONTROL_POWER_DOWN | CONTROL_ISOLATE) == 0
    }

    fn set_link(&mut self, link: bool) {
        self.was_down |= self.link && !link;
        self.link = link;
    }

    /// The link goes, and comes back when the negotiation is over; at once where speed and duplex are forced.
    fn negotiate(&mut self, now: u64) {
        self.negotiating = None;
        if !self.may_have_link() {
            self.set_link(false);
        } else if self.control() & CONTROL_AUTONEG == 0 {
            self.set_link(true);
        } else {
            self.set_link(false);
            self.negotiating = Some(now.saturating_add(NEGOTIATION));
        }
    }

    /// The partner comes or goes.
    pub(crate) fn set_carrier(&mut self, carrier: bool) {
        if core::mem::replace(&mut self.carrier, carrier) == carrier {
            return;
        }
        // It is the switch that says so, without a wire to be negotiated over.
        self.negotiating = None;
        self.set_link(self.may_have_link());
    }

    /// CTRL.PHY_RST is set or cleared.
    pub(crate) fn set_reset_wire(&mut self, held: bool, now: u64) {
        if core::mem::replace(&mut self.held, held) == held {
            return;
        }
        self.defaults();
        self.negotiate(now);
    }

    /// Time went on.
    pub(crate) fn expire(&mut self, now: u64) {
        if self.negotiating.is_some_and(|at| at <= now) {
            self.negotiating = None;
            self.set_link(self.may_have_link());
        }
    }

    /// The driver reads a register.
    pub(crate) fn read(&mut self, register: usize) -> u16 {
        let link = |value| if self.link { value } else { 0 };
        match register {
            STATUS => {
                let was_down = core::mem::take(&mut self.was_down);
                let shown = self.link && !was_down;
                let complete = self.link && self.control() & CONTROL_AUTONEG != 0;
                STATUS_ABILITIES
                    | if shown { STATUS_LINK } else { 0 }
                    | if complete { STATUS_COMPLETE } else { 0 }
            }
            PARTNER => link(PARTNER_VALUE),
            STATUS_1000T => link(STATUS_1000T_VALUE),
            M88_STATUS => link(M88_STATUS_LINK),
            _ => self.registers.get(register).copied().unwrap_or(0),
        }
    }

    /// The driver writes a register.
    pub(crate) fn write(&mut self, register: usize, value: u16, now: u64) {
        match register {
            CONTROL => self.write_control(value, now),
            STATUS | ID1 | ID2 | PARTNER | STATUS_1000T | EXTENDED_STATUS | M88_STATUS => {}
            _ => self.store(register, value),
        }
    }

    fn write_control(&mut self, value: u16, now: u64) {
        let before = self.control();
        if value & CONTROL_RESET != 0 {
            // A software reset keeps what was configured (88E1011, register 0.15) and takes it in use.
            self.store(CONTROL, value & !(CONTROL_RESET | CONTROL_RESTART));
            return self.negotiate(now);
        }
        self.store(CONTROL, value & !CONTROL_RESTART);
        let restarts = value & CONTROL_RESTART != 0 && value & CONTROL_AUTONEG != 0;
        let switches = (before ^ value) & (CONTROL_AUTONEG | CONTROL_POWER_DOWN | CONTROL_ISOLATE) != 0;
        if restarts || switches {
            self.negotiate(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_takes_the_link_down_for_a_while() {
        let mut phy = Phy::new(true);
        assert_eq!([phy.read(ID1), phy.read(ID2)], [0x0141, 0x0c20]);
        assert_eq!(phy.read(STATUS), 0x796d);
        phy.write(CONTROL, 0x1340, 1000);
        assert_eq!(phy.read(CONTROL), 0x1140);
        assert!(!phy.link());
        assert_eq!([phy.read(STATUS), phy.read(M88_STATUS), phy.read(PARTNER)], [0x7949, 0, 0]);
        let due = phy.deadline().unwrap();
        phy.expire(due - 1);
        assert!(!phy.link());
        phy.expire(due);
        assert!(phy.link() && phy.deadline().is_none());
        assert_eq!(phy.read(STATUS), 0x796d, "the status was read while the link was down");
    }

    #[test]
    fn a_link_that_was_down_is_shown_once() {
        let mut phy = Phy::new(true);
        phy.set_carrier(false);
        phy.set_carrier(true);
        assert_eq!([phy.read(STATUS) & STATUS_LINK, phy.read(STATUS) & STATUS_LINK], [0, STATUS_LINK]);
    }

    #[test]
    fn forced_speed_has_a_link_at_once_and_power_down_has_none() {
        let mut phy = Phy::new(true);
        phy.write(CONTROL, 0x8140, 0);
        assert!(phy.link() && phy.deadline().is_none());
        phy.write(CONTROL, 0x4140, 0);
        assert!(phy.is_looped());
        phy.write(CONTROL, 0x0940, 0);
        assert!(!phy.link() && !phy.is_looped());
        phy.write(CONTROL, 0x1140, 0);
        phy.expire(u64::MAX);
        assert!(phy.link());
        phy.set_reset_wire(true, 0);
        assert!(!phy.link());
        phy.set_reset_wire(false, 0);
        phy.expire(u64::MAX);
        assert!(phy.link());
    }

    #[test]
    fn without_a_partner_there_is_no_link() {
        let mut phy = Phy::new(false);
        phy.write(CONTROL, 0x1340, 0);
        phy.expire(u64::MAX);
        assert!(!phy.link());
        phy.set_carrier(true);
        assert!(phy.link());
    }
}
