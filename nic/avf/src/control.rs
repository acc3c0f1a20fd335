//! The physical function's part: who answers the mailbox (virtchnl 1.1).
//!
//! A request is checked in this order: is its opcode granted, is it as long as it must be, does it name our VSI, is it
//! possible, does the port's policy allow it. Each failure has the status that hardware gives for it. Exactly one reply
//! follows, but for requests that end in a reset.

mod features;
mod queues;
mod session;
mod traffic;

pub(crate) use session::Session;

use fabnic_avf_spec::virtchnl::{Caps, Event, LinkSpeed, Status, VSI_ID, opcode};

use crate::Avf;
use crate::mailbox::Request;

/// What follows a request: a reply with a body, or a reset instead. The error is a reply without one.
pub(crate) type Answer = Result<Reply, Status>;

/// What a request is answered with.
#[derive(Debug)]
pub(crate) enum Reply {
    /// A message with this body.
    Body(Vec<u8>),
    /// Nothing: the function was reset.
    Reset,
}

/// Done, and nothing to say.
pub(crate) const DONE: Answer = Ok(Reply::Body(Vec::new()));

/// What a message must be parsed into: its length is wrong if it cannot.
pub(crate) fn parsed<T>(message: Option<T>) -> Result<T, Status> {
    message.ok_or(Status::Param)
}

/// The VSI must be the one that was handed out.
pub(crate) fn ours(vsi: u16) -> Result<(), Status> {
    if vsi == VSI_ID { Ok(()) } else { Err(Status::Param) }
}

/// The capability that an opcode needs; `None` for an opcode that is not known.
fn needs(message: u32) -> Option<Caps> {
    Some(match message {
        opcode::VERSION | opcode::RESET_VF | opcode::GET_VF_RESOURCES => Caps::empty(),
        opcode::CONFIG_VSI_QUEUES
        | opcode::CONFIG_IRQ_MAP
        | opcode::ENABLE_QUEUES
        | opcode::DISABLE_QUEUES
        | opcode::GET_STATS
        | opcode::ADD_ETH_ADDR
        | opcode::DEL_ETH_ADDR
        | opcode::CONFIG_PROMISCUOUS_MODE => Caps::L2,
        opcode::CONFIG_RSS_KEY
        | opcode::CONFIG_RSS_LUT
        | opcode::CONFIG_RSS_HFUNC
        | opcode::GET_RSS_HENA_CAPS
        | opcode::SET_RSS_HENA => Caps::RSS_PF,
        opcode::ADD_VLAN
        | opcode::DEL_VLAN
        | opcode::ENABLE_VLAN_STRIPPING
        | opcode::DISABLE_VLAN_STRIPPING => Caps::VLAN,
        opcode::GET_OFFLOAD_VLAN_V2_CAPS
        | opcode::ADD_VLAN_V2
        | opcode::DEL_VLAN_V2
        | opcode::ENABLE_VLAN_STRIPPING_V2
        | opcode::DISABLE_VLAN_STRIPPING_V2
        | opcode::ENABLE_VLAN_INSERTION_V2
        | opcode::DISABLE_VLAN_INSERTION_V2 => Caps::VLAN_V2,
        opcode::REQUEST_QUEUES => Caps::REQ_QUEUES,
        opcode::GET_SUPPORTED_RXDIDS => Caps::RX_FLEX_DESC,
        opcode::ADD_RSS_CFG | opcode::DEL_RSS_CFG => Caps::ADV_RSS_PF,
        opcode::ADD_FDIR_FILTER | opcode::DEL_FDIR_FILTER => Caps::FDIR_PF,
        _ => return None,
    })
}

impl Avf {
    /// Answers a request whose body is in the inbox.
    pub(crate) fn answer(&mut self, request: Request) {
        let inbox = self.take_inbox();
        let body = inbox.as_ref().and_then(|inbox| inbox.get(..request.len)).unwrap_or(&[]);
        let answer = self.dispatch(request.message, body);
        self.return_inbox(inbox);
        match answer {
            Ok(Reply::Body(body)) => {
                self.mailbox.post(request.message, 0, body);
                // A driver believes that the link is up only behind these.
                if matches!(request.message, opcode::GET_VF_RESOURCES | opcode::ENABLE_QUEUES) {
                    self.post_link();
                }
            }
            Ok(Reply::Reset) => {}
            Err(status) => {
                tracing::debug!(port = %self.port.name, message = request.message, ?status, "virtchnl");
                self.mailbox.post(request.message, status as i32, Vec::new());
            }
        }
    }

    fn dispatch(&mut self, message: u32, body: &[u8]) -> Answer {
        let needed = needs(message).ok_or(Status::NotSupported)?;
        if !self.session.caps.contains(needed) {
            return Err(Status::NotSupported);
        }
        match message {
            opcode::VERSION => self.version(body),
            opcode::GET_VF_RESOURCES => self.resources(body),
            opcode::RESET_VF => {
                self.reset_function();
                Ok(Reply::Reset)
            }
            opcode::CONFIG_VSI_QUEUES => self.config_queues(body),
            opcode::CONFIG_IRQ_MAP => self.config_irq_map(body),
            opcode::ENABLE_QUEUES => self.enable_queues(body),
            opcode::DISABLE_QUEUES => self.disable_queues(body),
            opcode::REQUEST_QUEUES => self.request_queues(body),
            opcode::GET_STATS => self.stats(body),
            opcode::ADD_ETH_ADDR => self.add_addresses(body),
            opcode::DEL_ETH_ADDR => self.remove_addresses(body),
            opcode::CONFIG_PROMISCUOUS_MODE => self.promiscuous(body),
            opcode::ADD_VLAN => self.change_vlans(body, true),
            opcode::DEL_VLAN => self.change_vlans(body, false),
            opcode::ENABLE_VLAN_STRIPPING => self.strip(true),
            opcode::DISABLE_VLAN_STRIPPING => self.strip(false),
            opcode::CONFIG_RSS_KEY => self.rss_key(body),
            opcode::CONFIG_RSS_LUT => self.rss_lut(body),
            opcode::CONFIG_RSS_HFUNC => self.rss_hash(body),
            opcode::GET_RSS_HENA_CAPS => Ok(Reply::Body(crate::rss::SUPPORTED_HENA.to_le_bytes().to_vec())),
            opcode::SET_RSS_HENA => self.rss_types(body),
            opcode::GET_OFFLOAD_VLAN_V2_CAPS => self.vlan_caps(),
            opcode::ADD_VLAN_V2 => self.change_vlans_v2(body, true),
            opcode::DEL_VLAN_V2 => self.change_vlans_v2(body, false),
            opcode::ENABLE_VLAN_STRIPPING_V2 => self.strip_v2(body, true),
            opcode::DISABLE_VLAN_STRIPPING_V2 => self.strip_v2(body, false),
            opcode::ENABLE_VLAN_INSERTION_V2 => self.insert_v2(body, true),
            opcode::DISABLE_VLAN_INSERTION_V2 => self.insert_v2(body, false),
            opcode::GET_SUPPORTED_RXDIDS => Ok(Reply::Body(session::FORMATS.to_le_bytes().to_vec())),
            opcode::ADD_RSS_CFG => self.rss_stack(body, true),
            opcode::DEL_RSS_CFG => self.rss_stack(body, false),
            opcode::ADD_FDIR_FILTER => self.add_rule(body),
            opcode::DEL_FDIR_FILTER => self.remove_rule(body),
            _ => Err(Status::NotSupported),
        }
    }

    /// An event for the driver.
    pub(crate) fn post_event(&mut self, event: Event) {
        self.mailbox.post(opcode::EVENT, 0, event.encode().to_vec());
    }

    /// Says how the link is, in the way that was negotiated.
    pub(crate) fn post_link(&mut self) {
        let speed = match self.session.caps.contains(Caps::ADV_LINK_SPEED) {
            true => self.settings.speed,
            false => LinkSpeed::bit(self.settings.speed),
        };
        self.post_event(Event::Link { up: self.settings.link_up, speed });
    }
}
