//! What is known of a TCP connection, as a record and back.

use fabnic_saved as records;

use super::{Kind, Last, Side, Tcp, TcpState};

/// The largest window scale (RFC 7323, section 2.3).
const MAX_SCALE: u8 = 14;

const STATES: [TcpState; 9] = [
    TcpState::SynSent,
    TcpState::SynSent2,
    TcpState::SynRecv,
    TcpState::Established,
    TcpState::FinWait,
    TcpState::CloseWait,
    TcpState::LastAck,
    TcpState::TimeWait,
    TcpState::Close,
];
const KINDS: [Kind; 6] = [Kind::Nothing, Kind::Syn, Kind::SynAck, Kind::Fin, Kind::Ack, Kind::Rst];

impl Side {
    fn save(&self) -> records::TcpSide {
        let Side { end, max_end, max_window, max_ack, scale, flags } = *self;
        records::TcpSide { end, max_end, max_window, max_ack, scale, flags }
    }

    fn restored(saved: &records::TcpSide) -> Option<Side> {
        let records::TcpSide { end, max_end, max_window, max_ack, scale, flags } = *saved;
        (scale <= MAX_SCALE).then_some(Side { end, max_end, max_window, max_ack, scale, flags })
    }
}

impl Tcp {
    pub(crate) fn save(&self) -> records::Tcp {
        let Last { seq, ack, end, window, kind, reply, scale, flags, repeated } = self.last;
        records::Tcp {
            state: self.state as u8,
            sides: self.sides.map(|side| side.save()),
            last: records::TcpLast { seq, ack, end, window, kind: kind as u8, reply, scale, flags, repeated },
        }
    }

    /// Nothing, if there is no such state.
    pub(crate) fn restored(saved: &records::Tcp) -> Option<Tcp> {
        let records::TcpLast { seq, ack, end, window, kind, reply, scale, flags, repeated } = saved.last;
        let [original, answering] = &saved.sides;
        let kind = *KINDS.get(usize::from(kind))?;
        let last = Last { seq, ack, end, window, kind, reply, scale, flags, repeated };
        (scale <= MAX_SCALE).then_some(())?;
        Some(Tcp {
            sides: [Side::restored(original)?, Side::restored(answering)?],
            last,
            state: *STATES.get(usize::from(saved.state))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_and_kind_comes_back() {
        for (state, number) in STATES.into_iter().zip(0..) {
            assert_eq!(state as u8, number, "the record's number of {state:?}");
        }
        for (kind, number) in KINDS.into_iter().zip(0..) {
            assert_eq!(kind as u8, number, "the record's number of {kind:?}");
        }
        let saved = records::Tcp {
            state: 3,
            sides: [records::TcpSide { scale: 14, ..Default::default() }; 2],
            last: records::TcpLast { kind: 4, ..Default::default() },
        };
        assert_eq!(Tcp::restored(&saved).unwrap().save(), saved);
        for broken in [
            records::Tcp { state: 9, ..saved },
            records::Tcp { last: records::TcpLast { kind: 6, ..saved.last }, ..saved },
            records::Tcp { last: records::TcpLast { scale: 15, ..saved.last }, ..saved },
            records::Tcp { sides: [records::TcpSide { scale: 15, ..Default::default() }; 2], ..saved },
        ] {
            assert!(Tcp::restored(&broken).is_none(), "{broken:?}");
        }
    }
}
