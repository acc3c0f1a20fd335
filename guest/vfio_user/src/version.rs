//! VERSION: what both sides can do (vfio-user.rst, "VFIO_USER_VERSION").
//!
//! We answer 0.0 always: nothing of later minor versions is needed. QEMU reads our answer into the buffer of its own
//! proposal, so an answer must not be longer than what it answers; and its last byte must be there to be read.

use serde_json::{Map, Value};

use crate::dma::MAX_WINDOWS;
use crate::error::Refusal;
use crate::message::{MAX_DATA, MAX_FDS};

/// What the client said of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Descriptors that it takes with one message.
    pub(crate) fds: u64,
}

/// Takes what the client proposes, and makes the answer: a payload of at most `room` bytes.
pub(crate) fn negotiate(
    major: u16,
    minor: u16,
    json: &[u8],
    room: usize,
) -> Result<(Peer, Vec<u8>), Refusal> {
    if major != 0 {
        return Err(Refusal::invalid(format!("version {major}.{minor}"), "major version 0"));
    }
    let proposed = parse(json)?;
    let number = |key, default| match proposed.get(key) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .ok_or_else(|| Refusal::invalid(format!("capability {key} is no number"), "an unsigned integer")),
    };
    let peer = Peer { fds: number("max_msg_fds", 1)? };
    for key in ["max_data_xfer_size", "max_dma_maps", "pgsizes"] {
        number(key, 0)?;
    }
    Ok((peer, answer(room)))
}

fn parse(json: &[u8]) -> Result<Map<String, Value>, Refusal> {
    if json.is_empty() {
        return Ok(Map::new());
    }
    let bad = || {
        Refusal::invalid("capabilities that cannot be read", "a JSON object with one member, `capabilities`")
    };
    let mut whole = match serde_json::from_slice(json) {
        Ok(Value::Object(whole)) => whole,
        _ => return Err(bad()),
    };
    match whole.remove("capabilities") {
        None => Ok(Map::new()),
        Some(Value::Object(capabilities)) => Ok(capabilities),
        Some(_) => Err(bad()),
    }
}

/// Our capabilities, as many as there is room for: what differs most from what is assumed comes first.
fn answer(room: usize) -> Vec<u8> {
    let ours = [
        ("max_msg_fds", MAX_FDS.to_string()),
        ("max_dma_maps", MAX_WINDOWS.to_string()),
        ("max_data_xfer_size", MAX_DATA.to_string()),
        ("pgsizes", "4096".to_owned()),
    ];
    let mut members = String::new();
    // Four bytes of version in front, the zero behind.
    let fixed = 4 + r#"{"capabilities":{}}"#.len() + 1;
    for (key, value) in ours {
        let comma = if members.is_empty() { "" } else { "," };
        let member = format!(r#"{comma}"{key}":{value}"#);
        if fixed + members.len() + member.len() > room {
            break;
        }
        members.push_str(&member);
    }
    let mut answer = vec![0; 4];
    answer.extend_from_slice(format!(r#"{{"capabilities":{{{members}}}}}"#).as_bytes());
    answer.push(0);
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(answer: &[u8]) -> Value {
        assert_eq!(answer[..4], [0; 4], "version 0.0");
        assert_eq!(answer.last(), Some(&0));
        serde_json::from_slice(&answer[4..answer.len() - 1]).unwrap()
    }

    #[test]
    fn the_answer_fits_into_the_proposal() {
        let proposal = br#"{"capabilities":{"max_msg_fds":8,"max_data_xfer_size":1048576}}"#;
        let (peer, answer) = negotiate(0, 1, proposal, proposal.len() + 5).unwrap();
        assert_eq!(peer, Peer { fds: 8 });
        assert!(answer.len() <= proposal.len() + 5);
        assert_eq!(json(&answer)["capabilities"]["max_msg_fds"], 16);
        let (_, long) = negotiate(0, 0, proposal, 1000).unwrap();
        assert_eq!(json(&long)["capabilities"]["pgsizes"], 4096);
        assert_eq!(json(&long)["capabilities"]["max_data_xfer_size"], 1 << 20);
        let (peer, short) = negotiate(0, 7, b"", 4).unwrap();
        assert_eq!(peer, Peer { fds: 1 }, "what is assumed");
        assert_eq!(json(&short), serde_json::json!({"capabilities": {}}));
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for bad in
            [&b"{"[..], b"[]", b"\xff", br#"{"capabilities":[]}"#, br#"{"capabilities":{"max_msg_fds":"8"}}"#]
        {
            assert!(negotiate(0, 0, bad, 100).is_err(), "{bad:?}");
        }
        assert!(negotiate(0, 0, &b"[".repeat(4000), 100).is_err(), "deep");
        let error = negotiate(1, 0, b"", 100).unwrap_err();
        assert_eq!(error.to_string(), "version 1.0, expected major version 0");
        // Members that we do not know are nobody's mistake.
        assert!(negotiate(0, 0, br#"{"x":1,"capabilities":{"migration":{"pgsize":4096}}}"#, 100).is_ok());
    }
}
