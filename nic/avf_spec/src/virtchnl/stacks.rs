//! Header stacks: what advanced RSS and flow director rules are about.

use crate::bytes::{array, put, u16_at, u32_at};

/// Headers of a stack.
pub const MAX_HEADERS: u32 = 32;
/// Bytes of a header: type, fields, contents.
const HEADER: usize = 72;
/// Bytes of a stack.
const STACK: usize = 2312;
/// Actions of a rule.
pub const MAX_ACTIONS: u32 = 8;
const ACTION: usize = 36;

/// Types of headers.
pub mod header {
    #![allow(missing_docs, reason = "the names are the specification's")]
    pub const ETH: u32 = 1;
    pub const S_VLAN: u32 = 2;
    pub const C_VLAN: u32 = 3;
    pub const IPV4: u32 = 4;
    pub const IPV6: u32 = 5;
    pub const TCP: u32 = 6;
    pub const UDP: u32 = 7;
    pub const SCTP: u32 = 8;
    pub const IPV4_FRAGMENT: u32 = 22;
    pub const IPV6_FRAGMENT: u32 = 23;
}

/// Fields of headers, one a bit.
pub mod field {
    /// Source: address or port.
    pub const SOURCE: u32 = 1;
    /// Destination: address or port.
    pub const DESTINATION: u32 = 1 << 1;
    /// EtherType of Ethernet; type of service or traffic class of IP.
    pub const TYPE: u32 = 1 << 2;
    /// Time to live or hop limit of IP.
    pub const TTL: u32 = 1 << 3;
    /// Protocol or next header of IP.
    pub const PROTOCOL: u32 = 1 << 4;
}

/// A header: which one, which of its fields matter, and what is in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// See [`header`].
    pub kind: u32,
    /// See [`field`].
    pub fields: u32,
    /// The header as on the wire.
    pub bytes: [u8; 64],
}

/// A stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// 0: the outermost headers.
    pub tunnel_level: u8,
    /// From the outermost inwards; none if the stack is a pattern of raw bytes.
    pub headers: Vec<Header>,
}

impl Stack {
    /// Reads a stack. `None` if it has too many headers.
    pub fn parse(bytes: &[u8]) -> Option<Stack> {
        let bytes = bytes.get(..STACK)?;
        let count = u32_at(bytes, 4)?;
        if count > MAX_HEADERS {
            return None;
        }
        let count = usize::try_from(count).ok()?;
        let headers = bytes.get(8..)?.chunks_exact(HEADER).take(count).filter_map(|entry| {
            Some(Header { kind: u32_at(entry, 0)?, fields: u32_at(entry, 4)?, bytes: array(entry, 8)? })
        });
        Some(Stack { tunnel_level: *bytes.first()?, headers: headers.collect() })
    }

    fn write(&self, bytes: &mut [u8]) {
        put(bytes, 0, &[self.tunnel_level]);
        put(bytes, 4, &u32::try_from(self.headers.len()).unwrap_or(0).to_le_bytes());
        for (n, header) in self.headers.iter().enumerate() {
            let at = 8 + n * HEADER;
            put(bytes, at, &header.kind.to_le_bytes());
            put(bytes, at + 4, &header.fields.to_le_bytes());
            put(bytes, at + 8, &header.bytes);
        }
    }
}

/// ADD_RSS_CFG and DEL_RSS_CFG.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RssConfig {
    /// Which packets, and which fields are hashed.
    pub stack: Stack,
    /// As in [`super::RssHash`].
    pub algorithm: u32,
}

impl RssConfig {
    /// Bytes of the message.
    pub const LEN: usize = 2444;

    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<RssConfig> {
        Some(RssConfig { stack: Stack::parse(bytes)?, algorithm: u32_at(bytes, STACK)? })
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; RssConfig::LEN];
        self.stack.write(&mut bytes);
        put(&mut bytes, STACK, &self.algorithm.to_le_bytes());
        bytes
    }
}

/// What a flow director rule does with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drops it.
    Drop,
    /// Leaves it to RSS.
    PassThrough,
    /// Puts it into a queue.
    Queue(u16),
    /// Puts it into one of 2^`width` queues from `first` on, by its hash.
    Region {
        /// First queue.
        first: u16,
        /// How many, as a power of two.
        width: u8,
    },
    /// Marks its descriptor.
    Mark(u32),
    /// Counts it.
    Count,
}

impl Action {
    fn parse(bytes: &[u8]) -> Option<Action> {
        Some(match u32_at(bytes, 0)? {
            0 => Action::Drop,
            2 => Action::PassThrough,
            3 => Action::Queue(u16_at(bytes, 4)?),
            4 => Action::Region { first: u16_at(bytes, 4)?, width: *bytes.get(6)? },
            5 => Action::Mark(u32_at(bytes, 4)?),
            6 => Action::Count,
            _ => return None,
        })
    }

    fn write(self, bytes: &mut [u8]) {
        let kind: u32 = match self {
            Action::Drop => 0,
            Action::PassThrough => 2,
            Action::Queue(queue) => {
                put(bytes, 4, &queue.to_le_bytes());
                3
            }
            Action::Region { first, width } => {
                put(bytes, 4, &first.to_le_bytes());
                put(bytes, 6, &[width]);
                4
            }
            Action::Mark(mark) => {
                put(bytes, 4, &mark.to_le_bytes());
                5
            }
            Action::Count => 6,
        };
        put(bytes, 0, &kind.to_le_bytes());
    }
}

/// What became of a flow director request (`enum virtchnl_fdir_prgm_status`).
pub mod fdir {
    /// Done.
    pub const SUCCESS: i32 = 0;
    /// No room for more rules.
    pub const NO_RESOURCE: i32 = 1;
    /// There is such a rule.
    pub const EXISTS: i32 = 2;
    /// There is a rule for the same packets that does something else.
    pub const CONFLICT: i32 = 3;
    /// There is no such rule.
    pub const NOT_FOUND: i32 = 4;
    /// The rule is not possible.
    pub const INVALID: i32 = 5;
}

/// ADD_FDIR_FILTER.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FdirAdd {
    /// VSI.
    pub vsi: u16,
    /// Only say whether it is possible.
    pub validate_only: bool,
    /// Which packets; `None` if that cannot be read.
    pub stack: Option<Stack>,
    /// What to do; `None` if that cannot be read.
    pub actions: Option<Vec<Action>>,
}

impl FdirAdd {
    /// Bytes of the message.
    pub const LEN: usize = 2616;

    /// Reads the message. `None` if it is too short; what is in it may be impossible.
    pub fn parse(bytes: &[u8]) -> Option<FdirAdd> {
        let bytes = bytes.get(..FdirAdd::LEN)?;
        let count = u32_at(bytes, 8 + STACK)?;
        let actions = match usize::try_from(count) {
            Ok(count) if u32::try_from(count).is_ok_and(|count| count <= MAX_ACTIONS) => {
                let list = bytes.get(12 + STACK..)?.chunks_exact(ACTION).take(count);
                list.map(Action::parse).collect()
            }
            _ => None,
        };
        Some(FdirAdd {
            vsi: u16_at(bytes, 0)?,
            validate_only: u16_at(bytes, 2)? != 0,
            stack: Stack::parse(bytes.get(8..)?),
            actions,
        })
    }

    /// The message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![0; FdirAdd::LEN];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 2, &u16::from(self.validate_only).to_le_bytes());
        if let (Some(stack), Some(place)) = (&self.stack, bytes.get_mut(8..)) {
            stack.write(place);
        }
        let actions = self.actions.as_deref().unwrap_or(&[]);
        put(&mut bytes, 8 + STACK, &u32::try_from(actions.len()).unwrap_or(0).to_le_bytes());
        for (n, action) in actions.iter().enumerate() {
            if let Some(place) = bytes.get_mut(12 + STACK + n * ACTION..) {
                action.write(place);
            }
        }
        bytes
    }

    /// Makes the reply of a request: the same message, with flow id and status.
    pub fn reply(message: &mut [u8], flow: u32, status: i32) {
        put(message, 4, &flow.to_le_bytes());
        put(message, 2612, &status.to_le_bytes());
    }

    /// Flow id and status of a reply.
    pub fn parse_reply(bytes: &[u8]) -> Option<(u32, i32)> {
        Some((u32_at(bytes, 4)?, u32_at(bytes, 2612)?.cast_signed()))
    }
}

/// DEL_FDIR_FILTER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FdirDelete {
    /// VSI.
    pub vsi: u16,
    /// The rule.
    pub flow: u32,
    /// What became of it, in a reply.
    pub status: i32,
}

impl FdirDelete {
    /// Reads the message.
    pub fn parse(bytes: &[u8]) -> Option<FdirDelete> {
        Some(FdirDelete {
            vsi: u16_at(bytes, 0)?,
            flow: u32_at(bytes, 4)?,
            status: u32_at(bytes, 8)?.cast_signed(),
        })
    }

    /// The message.
    pub fn encode(&self) -> [u8; 12] {
        let mut bytes = [0; 12];
        put(&mut bytes, 0, &self.vsi.to_le_bytes());
        put(&mut bytes, 4, &self.flow.to_le_bytes());
        put(&mut bytes, 8, &self.status.to_le_bytes());
        bytes
    }
}
