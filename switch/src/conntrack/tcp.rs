//! The state of a TCP connection as somebody in the middle can know it.
//!
//! The states and their transitions are RFC 9293's, seen from between the two ends, as Linux' nf_conntrack names them; the
//! window check is that of G. van Rooij, "Real Stateful TCP Packet Filtering in IP Filter" (2000), with window scaling
//! (RFC 7323) and selective acknowledgment (RFC 2018).
//!
//! ```text
//!             SYN             SYN+ACK            ACK               FIN            ACK              FIN          ACK
//!   (none) --------> SynSent --------> SynRecv -------> Established ---> FinWait ---> CloseWait ---> LastAck ---> TimeWait
//!                       | SYN from the other side                          '------------- FIN ----------^
//!                       '--> SynSent2 --SYN+ACK--> SynRecv          RST from anywhere --> Close
//! ```
//!
//! Of each side is known: `end`, the highest sequence number it has sent; `max_end`, the highest that the other side's
//! window allows it; `max_window`, the largest window it has offered. A segment is in window if
//!
//! 1. `seq <= sender.max_end`: it does not begin behind the receiver's window;
//! 2. `ack <= receiver.end`: it acknowledges nothing that was not sent;
//! 3. `seq + len >= sender.end - receiver.max_window`: it is not older than what could still be unacknowledged;
//! 4. `ack >= receiver.end - max(sender.max_window, 66000)`: nor something long gone.
//!
//! What breaks rule 3 or 4 is late or sent again, and harms nobody: it is let through, and nothing is learned from it. So is
//! what breaks rule 1 by no more than a window: there are TCPs that send too much, and receivers that take it. What they then
//! acknowledge was sent. These are also Linux' exceptions, as of 7.2.
//!
//! # Invariants
//! - All arithmetic on sequence numbers is modulo 2^32.
//! - [`Tcp::packet`] is a function of the state, the segment and the settings: run on a copy it tells what would happen.

use fabnic_wire::transport::TcpFlags;

use super::connection::Direction;
use super::segment::{Segment, SynOptions, is_after};
use super::settings::Timeout;

mod saved;

/// Acknowledgments this far behind are not taken for old ones, whatever the windows: rule 4.
const LEAST_ACK_WINDOW: u32 = 66_000;

/// Where a connection is, seen from the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcpState {
    /// A SYN was seen.
    SynSent,
    /// A SYN of each side was seen: simultaneous open.
    SynSent2,
    /// A SYN with ACK was seen.
    SynRecv,
    /// Open.
    Established,
    /// One side has sent FIN.
    FinWait,
    /// That FIN was acknowledged.
    CloseWait,
    /// Both sides have sent FIN.
    LastAck,
    /// The last FIN was acknowledged.
    TimeWait,
    /// Reset.
    Close,
}

impl TcpState {
    /// Its name as `conntrack -L` prints it.
    pub const fn label(self) -> &'static str {
        match self {
            TcpState::SynSent => "SYN_SENT",
            TcpState::SynSent2 => "SYN_SENT2",
            TcpState::SynRecv => "SYN_RECV",
            TcpState::Established => "ESTABLISHED",
            TcpState::FinWait => "FIN_WAIT",
            TcpState::CloseWait => "CLOSE_WAIT",
            TcpState::LastAck => "LAST_ACK",
            TcpState::TimeWait => "TIME_WAIT",
            TcpState::Close => "CLOSE",
        }
    }

    fn timeout(self) -> Timeout {
        match self {
            TcpState::SynSent | TcpState::SynSent2 => Timeout::TcpSynSent,
            TcpState::SynRecv => Timeout::TcpSynRecv,
            TcpState::Established => Timeout::TcpEstablished,
            TcpState::FinWait => Timeout::TcpFinWait,
            TcpState::CloseWait => Timeout::TcpCloseWait,
            TcpState::LastAck => Timeout::TcpLastAck,
            TcpState::TimeWait => Timeout::TcpTimeWait,
            TcpState::Close => Timeout::TcpClose,
        }
    }
}

/// What a segment is, by its flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
enum Kind {
    #[default]
    Nothing,
    Syn,
    SynAck,
    Fin,
    Ack,
    Rst,
}

fn kind(flags: TcpFlags) -> Kind {
    if flags.has(TcpFlags::RST) {
        Kind::Rst
    } else if flags.has(TcpFlags::SYN) {
        if flags.has(TcpFlags::ACK) { Kind::SynAck } else { Kind::Syn }
    } else if flags.has(TcpFlags::FIN) {
        Kind::Fin
    } else {
        Kind::Ack
    }
}

/// What a kind of segment means in a state.
enum Turn {
    To(TcpState),
    /// It may be right or wrong: let through, answered by who knows, and remembered.
    Ignore,
    /// No such segment can be right.
    Invalid,
}

fn turn(direction: Direction, kind: Kind, state: TcpState) -> Turn {
    use TcpState::{Close, CloseWait, Established, FinWait, LastAck, SynRecv, SynSent, SynSent2, TimeWait};
    let original = direction == Direction::Original;
    match (kind, state) {
        (Kind::Nothing, _) => Turn::Invalid,
        (Kind::Rst, _) => Turn::To(Close),

        (Kind::Syn, SynSent) => Turn::To(if original { SynSent } else { SynSent2 }),
        (Kind::Syn, SynSent2) => Turn::To(SynSent2),
        // Opened anew, by either side.
        (Kind::Syn, TimeWait) => Turn::To(SynSent),
        (Kind::Syn, Close) if original => Turn::To(SynSent),
        // We may be out of step with the two ends.
        (Kind::Syn, _) if original => Turn::Ignore,
        (Kind::Syn, _) => Turn::Invalid,

        (Kind::SynAck, SynSent2) => Turn::To(SynRecv),
        (Kind::SynAck, SynSent) if !original => Turn::To(SynRecv),
        // Sent again, late, in a simultaneous open.
        (Kind::SynAck, SynRecv) if original => Turn::To(SynRecv),
        (Kind::SynAck, _) if !original => Turn::Ignore,
        (Kind::SynAck, _) => Turn::Invalid,

        (Kind::Fin, SynSent | SynSent2) => Turn::Invalid,
        (Kind::Fin, SynRecv | Established) => Turn::To(FinWait),
        (Kind::Fin, FinWait | CloseWait | LastAck) => Turn::To(LastAck),
        (Kind::Fin, TimeWait) => Turn::To(TimeWait),
        (Kind::Fin, Close) => Turn::To(Close),

        (Kind::Ack, SynSent | SynSent2) if original => Turn::Invalid,
        // The other end may hold a half-open connection of old.
        (Kind::Ack, SynSent | SynSent2) => Turn::Ignore,
        (Kind::Ack, SynRecv) => Turn::To(if original { Established } else { SynRecv }),
        (Kind::Ack, Established) => Turn::To(Established),
        (Kind::Ack, FinWait | CloseWait) => Turn::To(CloseWait),
        (Kind::Ack, LastAck | TimeWait) => Turn::To(TimeWait),
        (Kind::Ack, Close) => Turn::To(Close),
    }
}

/// What is known of one side, as a sender.
#[derive(Clone, Copy, Debug, Default)]
struct Side {
    /// Behind the highest sequence number that it has sent.
    end: u32,
    /// Behind the highest that the other side's window lets it send.
    max_end: u32,
    /// The largest window that it has offered, scaled; 0: nothing was seen of it.
    max_window: u32,
    /// The highest acknowledgment that it has sent, with [`MAX_ACK`].
    max_ack: u32,
    scale: u8,
    flags: u8,
}

/// It offered window scaling.
const SCALES: u8 = 1;
/// It permits selective acknowledgment.
const SACK: u8 = 2;
/// It was the first to send FIN.
const CLOSED_FIRST: u8 = 4;
/// Its windows are not checked: its SYN was not seen, or its segments came in fragments.
const LIBERAL: u8 = 8;
/// It has sent what is not acknowledged.
const UNACKNOWLEDGED: u8 = 16;
/// `max_ack` is good.
const MAX_ACK: u8 = 32;
/// In [`Last::flags`]: after an ignored SYN in `LastAck`, a challenge ACK (RFC 5961) may come that is not the last one.
const CHALLENGE: u8 = 64;
/// In [`Last::flags`]: both sides opened.
const SIMULTANEOUS: u8 = 128;

impl SynOptions {
    fn flags(&self) -> u8 {
        (u8::from(self.scale.is_some()) * SCALES) | (u8::from(self.sack) * SACK)
    }
}

impl Side {
    fn open(&mut self, segment: &Segment<'_>) {
        self.end = segment.end;
        self.max_end = segment.end;
        self.max_window = segment.window.max(1);
        let options = segment.syn_options();
        self.scale = options.scale.unwrap_or(0);
        self.flags = options.flags() | self.flags & LIBERAL;
    }

    /// Window scaling is used by both or none (RFC 7323, section 1.3); known when the second one answers.
    fn agree(&mut self, other: &mut Side, reply: bool) {
        if reply && self.flags & other.flags & SCALES == 0 {
            self.scale = 0;
            other.scale = 0;
        }
    }
}

/// The last segment that was let through, to tell repetitions, and answers to what was ignored.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    seq: u32,
    ack: u32,
    end: u32,
    window: u32,
    kind: Kind,
    reply: bool,
    scale: u8,
    flags: u8,
    repeated: u8,
}

/// What the middle knows of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp {
    sides: [Side; 2],
    last: Last,
    state: TcpState,
}

/// How strictly, from the zone's settings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strictness {
    /// Out-of-window segments are let through, except RST.
    pub(crate) liberal: bool,
    /// After so many repetitions of one segment without answer, the connection is kept for a shorter time.
    pub(crate) max_retransmissions: u8,
}

/// What the connection is besides its TCP state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Something came in the reply direction.
    pub(crate) replied: bool,
    /// It was open both ways.
    pub(crate) assured: bool,
}

/// Why a segment is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// No such segment can be right in this state.
    State,
    /// Rule 1.
    BeyondWindow,
    /// Rule 2.
    AckOfUnsent,
    /// A RST with a sequence number that was acknowledged already.
    Rst,
}

/// Why a segment is not in window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misfit {
    /// It cannot be right.
    Wrong(Invalid),
    /// It harms nobody, but tells nothing.
    Harmless,
}

/// How long a connection is kept after a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keep {
    pub(crate) class: Timeout,
    /// But not longer than this.
    pub(crate) at_most: Option<Timeout>,
}

/// What a segment does to its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// In order: keep the connection for this class of time; `assured` if it is open both ways from now on.
    Valid { keep: Keep, assured: bool },
    /// Let through, and nothing changes.
    Ignored,
    /// It belongs to no connection.
    Invalid(Invalid),
    /// The connection is over, and the segment opens another one with the same tuple.
    Reopen,
    /// Valid, and the last one: a connection that never was is over.
    Over,
}

impl Tcp {
    /// The state that a first segment makes. Nothing if it opens no connection: neither a SYN nor, where connections may
    /// be picked up in the middle (`loose`), a segment with ACK that carries on.
    pub(crate) fn new(segment: &Segment<'_>, loose: bool) -> Option<Tcp> {
        let mut first = Side::default();
        let mut second = Side::default();
        let state = match kind(segment.flags) {
            Kind::Syn => {
                first.open(segment);
                TcpState::SynSent
            }
            Kind::Ack if loose => {
                // Its history is lost: neither scale nor SACK is known, so windows are not checked.
                first.end = segment.end;
                first.max_window = segment.window.max(1);
                first.max_end = segment.end.wrapping_add(first.max_window);
                first.flags = SACK | LIBERAL;
                second.flags = SACK | LIBERAL;
                TcpState::Established
            }
            _ => return None,
        };
        Some(Tcp { sides: [first, second], last: Last::default(), state })
    }

    pub(crate) fn state(&self) -> TcpState {
        self.state
    }

    /// From now on windows are not checked: something went by of which the length is not known.
    pub(crate) fn relax(&mut self) {
        for side in &mut self.sides {
            side.flags |= LIBERAL;
        }
    }

    /// Takes a segment into account.
    #[inline(always)]
    pub(crate) fn packet(
        &mut self,
        direction: Direction,
        segment: &Segment<'_>,
        strictness: Strictness,
        known: Known,
    ) -> Effect {
        let kind = kind(segment.flags);
        let old = self.state;
        // What nearly every segment is.
        let mut new = if kind == Kind::Ack && old == TcpState::Established {
            old
        } else {
            match self.decide(direction, kind, segment, known) {
                Ok(new) => new,
                Err(effect) => return effect,
            }
        };
        let mut check = true;
        if kind == Kind::Rst {
            match self.judge_rst(direction, segment, known) {
                RstVerdict::Check => {}
                RstVerdict::Pass => check = false,
                RstVerdict::Stay => new = old,
                RstVerdict::Invalid => return Effect::Invalid(Invalid::Rst),
            }
        }
        if check && let Err(why) = self.window(direction, kind, segment) {
            let (sender, _) = self.pair(direction);
            let lenient = sender.flags & LIBERAL != 0 || strictness.liberal && kind != Kind::Rst;
            match why {
                _ if lenient => {}
                Misfit::Harmless => return Effect::Ignored,
                Misfit::Wrong(why) => return Effect::Invalid(why),
            }
        }
        self.last.kind = kind;
        self.last.reply = direction == Direction::Reply;
        self.state = new;
        if old != new && new == TcpState::FinWait {
            self.pair(direction).0.flags |= CLOSED_FIRST;
        }
        if kind == Kind::Rst && !known.replied {
            // The only answer was a refusal, or who asked gave up.
            return Effect::Over;
        }
        let waiting = (self.sides[0].flags | self.sides[1].flags) & UNACKNOWLEDGED != 0;
        let at_most = if self.last.repeated >= strictness.max_retransmissions || self.last.window == 0 {
            Some(Timeout::TcpRetransmissions)
        } else if waiting || !known.replied {
            Some(Timeout::TcpUnacknowledged)
        } else {
            None
        };
        let keep = Keep { class: new.timeout(), at_most };
        let opened = matches!(old, TcpState::SynRecv | TcpState::Established);
        let assured = known.assured || (known.replied && opened && new == TcpState::Established);
        Effect::Valid { keep, assured }
    }

    fn pair(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [original, reply] = &mut self.sides;
        match direction {
            Direction::Original => (original, reply),
            Direction::Reply => (reply, original),
        }
    }

    /// The new state, or what else the segment does.
    #[inline(never)]
    fn decide(
        &mut self,
        direction: Direction,
        kind: Kind,
        segment: &Segment<'_>,
        known: Known,
    ) -> Result<TcpState, Effect> {
        let reply = direction == Direction::Reply;
        let old = self.state;
        match turn(direction, kind, old) {
            Turn::Invalid => Err(Effect::Invalid(Invalid::State)),
            Turn::To(TcpState::SynSent) if matches!(old, TcpState::TimeWait | TcpState::Close) => {
                let closed = (self.sides[0].flags | self.sides[1].flags) & CLOSED_FIRST != 0;
                let reset = self.last.kind == Kind::Rst;
                if closed || reset || reply {
                    // RFC 9293 section 3.6.1: TIME-WAIT may be left by a new SYN; and who was reset may try again.
                    return Err(Effect::Reopen);
                }
                self.ignore(reply, kind, segment)
            }
            Turn::Ignore => self.ignore(reply, kind, segment),
            Turn::To(TcpState::TimeWait)
                if old == TcpState::LastAck
                    && kind == Kind::Ack
                    && self.last.reply != reply
                    && self.last.kind == Kind::Syn
                    && self.last.flags & CHALLENGE != 0 =>
            {
                self.last.flags &= !CHALLENGE;
                Err(Effect::Ignored)
            }
            Turn::To(TcpState::SynSent2) => {
                self.last.flags |= SIMULTANEOUS;
                Ok(TcpState::SynSent2)
            }
            // Both have opened and both have acknowledged.
            Turn::To(TcpState::SynRecv)
                if reply && kind == Kind::Ack && self.last.flags & SIMULTANEOUS != 0 && known.replied =>
            {
                Ok(TcpState::Established)
            }
            Turn::To(new) => Ok(new),
        }
    }

    /// A segment that may be the truth while we are out of step: remembered, so that its answer puts us in step.
    fn ignore(&mut self, reply: bool, kind: Kind, segment: &Segment<'_>) -> Result<TcpState, Effect> {
        let last = self.last;
        if kind == Kind::SynAck && last.kind == Kind::Syn && last.reply != reply && segment.ack == last.end {
            // The answer to a SYN that was ignored: the two ends agree, and we with them.
            let side = Side {
                end: last.end,
                max_end: last.end,
                max_window: last.window.max(1),
                max_ack: 0,
                scale: last.scale,
                flags: last.flags & (SCALES | SACK),
            };
            let flags =
                self.pair(if reply { Direction::Reply } else { Direction::Original }).0.flags & LIBERAL;
            let answer = Side { flags, ..Side::default() };
            self.sides = if reply { [side, answer] } else { [answer, side] };
            self.state = TcpState::SynSent;
            return Ok(TcpState::SynRecv);
        }
        self.last.kind = kind;
        self.last.reply = reply;
        self.last.seq = segment.seq;
        self.last.end = segment.end;
        self.last.window = segment.window;
        if kind == Kind::Ack && reply && self.state == TcpState::SynSent {
            // A challenge to a SYN; who sent that resets with this number (RFC 5961, section 4).
            self.last.ack = segment.ack;
        }
        if kind == Kind::Syn && !reply {
            let options = segment.syn_options();
            self.last.scale = options.scale.unwrap_or(0);
            self.last.flags = options.flags();
            if self.state == TcpState::LastAck {
                self.last.flags |= CHALLENGE;
            }
        }
        Err(Effect::Ignored)
    }

    /// A RST is believed only with the sequence number that its receiver expects (RFC 5961 section 3). One that answers a
    /// segment that was ignored, with its number, is believed as it is.
    #[inline(never)]
    fn judge_rst(&self, direction: Direction, segment: &Segment<'_>, known: Known) -> RstVerdict {
        let reply = direction == Direction::Reply;
        let [original, answer] = &self.sides;
        let receiver = if reply { original } else { answer };
        // A tuple that is being closed may be in use anew already: what is known may be outdated.
        let closing = matches!(
            self.state,
            TcpState::FinWait
                | TcpState::LastAck
                | TcpState::TimeWait
                | TcpState::Close
                | TcpState::CloseWait
        );
        if closing {
            return RstVerdict::Pass;
        }
        if reply && self.state == TcpState::SynSent {
            // RFC 9293 section 3.10.7.3: believed only if it acknowledges the SYN.
            let answers = segment.flags.has(TcpFlags::ACK) && segment.ack == receiver.end;
            return if answers { RstVerdict::Check } else { RstVerdict::Invalid };
        }
        let established = self.state == TcpState::Established;
        if receiver.flags & MAX_ACK != 0 && self.last.kind != Kind::Syn {
            if segment.seq == 0 && !established {
                return RstVerdict::Check;
            }
            if is_after(receiver.max_ack, segment.seq) {
                return RstVerdict::Invalid;
            }
            let exact = segment.seq == receiver.max_ack;
            let in_train =
                self.last.kind == Kind::Ack && self.last.reply == reply && segment.seq == self.last.end;
            if established && !exact && !in_train {
                // The receiver answers with a challenge ACK; a real RST comes again with the right number.
                return RstVerdict::Stay;
            }
        }
        let answers_ignored = (known.replied && self.last.kind == Kind::Syn && self.last.reply != reply)
            || (!known.assured && self.last.kind == Kind::Ack);
        let answers_challenge = self.state == TcpState::SynSent
            && self.last.kind == Kind::Ack
            && self.last.reply
            && segment.seq == self.last.ack;
        let pass = answers_ignored && segment.ack == self.last.end || answers_challenge;
        if pass { RstVerdict::Pass } else { RstVerdict::Check }
    }

    /// The window check; takes the segment into account if it passes.
    #[inline(always)]
    fn window(&mut self, direction: Direction, kind: Kind, segment: &Segment<'_>) -> Result<(), Misfit> {
        let state = self.state;
        let is_reply = direction == Direction::Reply;
        let (sender, receiver) = self.pair(direction);
        let Segment { mut seq, mut ack, mut end, mut window, .. } = *segment;
        let mut sack = if receiver.flags & SACK != 0 { segment.sack() } else { ack };
        let is_syn = matches!(kind, Kind::Syn | Kind::SynAck);
        let has_ack = segment.flags.has(TcpFlags::ACK);
        if sender.max_window == 0 {
            if is_syn {
                sender.open(segment);
                sender.agree(receiver, is_reply);
                if !has_ack {
                    return Ok(());
                }
            } else {
                // The other side of a connection that was picked up in the middle.
                sender.end = end;
                sender.max_window = (window << sender.scale).max(1);
                sender.max_end = end.wrapping_add(sender.max_window);
                if receiver.max_window == 0 {
                    receiver.end = sack;
                    receiver.max_end = sack;
                } else if sack == receiver.end.wrapping_add(1) {
                    // What was seen of the other side was a keep-alive, one byte behind.
                    receiver.end = sack;
                }
            }
        } else if is_syn
            && matches!(state, TcpState::SynSent | TcpState::SynRecv)
            && is_after(end, sender.end)
        {
            // Started again with higher numbers.
            sender.open(segment);
            sender.agree(receiver, is_reply);
            if is_reply && !has_ack {
                return Ok(());
            }
        }
        if !has_ack || (kind == Kind::Rst && ack == 0) {
            ack = receiver.end;
            sack = ack;
        }
        if kind == Kind::Rst && seq == 0 && state == TcpState::SynSent {
            // Refused by who has no number to refuse with.
            seq = sender.end;
            end = seq;
        }
        let oldest = sender.end.wrapping_sub(receiver.max_window);
        let oldest_ack = receiver.end.wrapping_sub(sender.max_window.max(LEAST_ACK_WINDOW));
        let (late, late_ack) = (is_after(oldest, end), is_after(oldest_ack, sack));
        let ack_of_unsent = is_after(sack, receiver.end);
        if is_after(seq, sender.max_end) {
            let beyond = end.wrapping_sub(sender.max_end).wrapping_add(1);
            if late || late_ack || ack_of_unsent || beyond > receiver.max_window {
                return Err(Misfit::Wrong(Invalid::BeyondWindow));
            }
            sender.end = end;
            sender.flags |= UNACKNOWLEDGED;
            return Err(Misfit::Harmless);
        }
        if ack_of_unsent {
            return Err(Misfit::Wrong(Invalid::AckOfUnsent));
        }
        if late_ack || late && receiver.max_window != 0 {
            return Err(Misfit::Harmless);
        }
        if !is_syn {
            window <<= sender.scale;
        }
        sender.max_window = sender.max_window.max(window.wrapping_add(sack.wrapping_sub(ack)));
        if is_after(end, sender.end) {
            sender.end = end;
            sender.flags |= UNACKNOWLEDGED;
        }
        if has_ack && (sender.flags & MAX_ACK == 0 || is_after(ack, sender.max_ack)) {
            sender.max_ack = ack;
            sender.flags |= MAX_ACK;
        }
        if receiver.max_window != 0 && is_after(end, sender.max_end) {
            receiver.max_window = receiver.max_window.saturating_add(end.wrapping_sub(sender.max_end));
        }
        let allowed = sack.wrapping_add(window.max(1));
        if is_after(allowed, receiver.max_end) {
            receiver.max_end = allowed;
        }
        if ack == receiver.end {
            receiver.flags &= !UNACKNOWLEDGED;
        }
        if kind == Kind::Ack {
            let reply = direction == Direction::Reply;
            let last = &mut self.last;
            let same = last.reply == reply
                && (last.seq, last.ack, last.end, last.window) == (seq, ack, end, segment.window);
            last.repeated = if same { last.repeated.saturating_add(1) } else { 0 };
            last.seq = seq;
            last.ack = ack;
            last.end = end;
            last.window = segment.window;
        }
        Ok(())
    }
}

enum RstVerdict {
    /// To be checked as any segment.
    Check,
    /// Believed as it is.
    Pass,
    /// Let through, but the connection stays.
    Stay,
    Invalid,
}
