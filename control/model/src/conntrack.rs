//! How the packets of a port are tracked, what a port's address is to others, and how zones keep connections.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{
    Refusal,
    refusal::{Path, Step},
};

/// Connections of a port. With it, rules may ask for `ct_state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Conntrack {
    /// Zone that the port's packets are tracked in, one for each tenant as a rule: ports of one zone share its connections.
    pub zone: u16,
    /// Most connections of the port.
    pub limit: u32,
    /// `any`: every packet may come to the port. `answers`: only packets of connections that the port opened.
    pub incoming: Incoming,
    /// Whether packets that the port sends and that fit no connection are dropped.
    pub drop_invalid: bool,
}

impl Default for Conntrack {
    fn default() -> Self {
        Self { zone: 0, limit: 65536, incoming: Incoming::Any, drop_invalid: true }
    }
}

/// Which packets a port takes.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Incoming {
    /// All of them.
    #[default]
    Any,
    /// Only those of connections that it opened.
    Answers,
}

/// An address of the port that everybody else knows by another one. Connections that the port opens from `inside` come from
/// `outside`, and those to `outside` go to `inside`. It needs `conntrack`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PortNat {
    /// The address that the port itself has.
    #[schema(value_type = String)]
    pub inside: IpAddr,
    /// The address that it has to everybody else, of the same kind. Where the switch answers ARP and neighbour
    /// solicitations, it answers for it.
    #[schema(value_type = String)]
    pub outside: IpAddr,
}

/// A zone of connections of which something else than usual is to be said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Zone {
    /// The zone, 0 to 65535; ports and rules name it.
    pub id: u16,
    /// Most connections in the zone. No limit but the table's unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Whether a TCP segment without SYN may open a connection, whose windows are not checked then. True unless said.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub loose: bool,
    /// Whether TCP segments outside the window are valid, except RST. False unless said.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub liberal: bool,
    /// How often one TCP segment may come again before `tcp_retransmissions` holds, 1 to 255; 3 unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    #[schema(minimum = 1)]
    pub max_retransmissions: Option<u8>,
    /// Seconds without a packet after which connections are forgotten: `{ udp = 60, tcp_established = 7200 }`.
    #[serde(default, skip_serializing_if = "Timeouts::is_default")]
    pub timeouts: Timeouts,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
const fn is_true(value: &bool) -> bool {
    *value
}

macro_rules! timeouts {
    ($($(#[doc = $doc:literal])+ $name:ident;)*) => {
        /// Seconds without a packet after which connections are forgotten, by what is known of them: 1 to 31536000.
        #[derive(
            Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
        )]
        #[serde(deny_unknown_fields, default)]
        pub struct Timeouts {
            $(
                $(#[doc = $doc])+
                #[serde(skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = 1, max = 31_536_000))]
                #[schema(minimum = 1, maximum = 31_536_000)]
                pub $name: Option<u32>,
            )*
        }

        impl Timeouts {
            /// Those that are said, by their keys.
            pub fn said(&self) -> impl Iterator<Item = (&'static str, u32)> {
                [$((stringify!($name), self.$name),)*]
                    .into_iter()
                    .filter_map(|(name, seconds)| Some((name, seconds?)))
            }
        }
    };
}

timeouts! {
    /// TCP: a SYN was seen. 120 unless said.
    tcp_syn_sent;
    /// TCP: the SYN was answered. 60 unless said.
    tcp_syn_recv;
    /// TCP: open. 432000 unless said.
    tcp_established;
    /// TCP: one side is closing. 120 unless said.
    tcp_fin_wait;
    /// TCP: the first FIN was acknowledged. 60 unless said.
    tcp_close_wait;
    /// TCP: both sides have closed, the last acknowledgment is missing. 30 unless said.
    tcp_last_ack;
    /// TCP: closed. 120 unless said.
    tcp_time_wait;
    /// TCP: reset. 10 unless said.
    tcp_close;
    /// TCP: the most while one segment is sent again and again, or the window is closed. 300 unless said.
    tcp_retransmissions;
    /// TCP: the most while something is not acknowledged. 300 unless said.
    tcp_unacknowledged;
    /// UDP: one way only, or for less than two seconds. 30 unless said.
    udp;
    /// UDP: both ways, for longer. 120 unless said.
    udp_stream;
    /// ICMP and ICMPv6 queries. 30 unless said.
    icmp;
    /// Every other protocol. 600 unless said.
    generic;
}

impl Timeouts {
    /// The longest, in seconds: a year.
    pub(crate) const MOST: u32 = 31_536_000;

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Zone {
    /// The rules within one table.
    pub(crate) fn check(&self, at: &[Step], found: &mut Vec<Refusal>) {
        let path = |keys: &[&str]| -> Path {
            let keys = keys.iter().map(|key| Step::Key((*key).into()));
            at.iter().cloned().chain(keys).collect()
        };
        for (name, seconds) in self.timeouts.said() {
            if !(1..=Timeouts::MOST).contains(&seconds) {
                let expected = format!("1 to {}", Timeouts::MOST);
                let problem = format!("{seconds} seconds are out of range");
                found.push(Refusal::at(path(&["timeouts", name]), problem, expected));
            }
        }
        if self.max_retransmissions == Some(0) {
            found.push(Refusal::at(path(&["max_retransmissions"]), "0 is out of range", "1 to 255"));
        }
    }
}

impl PortNat {
    /// The rules within one table. `is_tracked`: the port has `conntrack`.
    pub(crate) fn check(&self, is_tracked: bool, at: &[Step], found: &mut Vec<Refusal>) {
        let key = |key: &str| -> Path { at.iter().cloned().chain([Step::Key(key.into())]).collect() };
        if !is_tracked {
            let problem = "what is translated are connections, and the port's are not tracked";
            found.push(Refusal::at(at.to_vec(), problem, "`conntrack` with it"));
        }
        for (name, address) in [("inside", self.inside), ("outside", self.outside)] {
            if address.is_multicast() || address.is_unspecified() {
                found.push(Refusal::at(key(name), format!("nobody can have {address}"), "a unicast address"));
            }
        }
        if self.inside.is_ipv4() != self.outside.is_ipv4() {
            found.push(Refusal::at(
                key("outside"),
                format!("{} is of another kind than {}", self.outside, self.inside),
                "both of IPv4, or both of IPv6",
            ));
        } else if self.inside == self.outside {
            found.push(Refusal::at(key("outside"), "the two addresses are the same", "another address"));
        }
    }
}
