use std::os::fd::AsFd;

use super::*;

/// A back end of two lines: takes one message, answers it.
fn answering(answer: impl FnOnce(Message) -> (u32, Vec<u8>) + Send + 'static) -> FrontEnd {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = Channel::new(theirs).unwrap();
    std::thread::spawn(move || {
        let message = peer.receive().unwrap();
        let request = message.request;
        let (flags, payload) = answer(message);
        peer.send_raw(request, flags, &payload, &[]).unwrap();
    });
    FrontEnd::new(ours).unwrap()
}

#[test]
fn an_answer_is_read() {
    let mut front_end = answering(|message| {
        assert_eq!((message.request, message.flags, message.payload.len()), (request::GET_FEATURES, 1, 0));
        (5, 0x1234_u64.to_ne_bytes().to_vec())
    });
    assert_eq!(front_end.get_features().unwrap(), 0x1234);
}

#[test]
fn wrong_answers_are_refused() {
    let mut front_end = answering(|_| (1, vec![0; 8]));
    assert!(matches!(front_end.get_features(), Err(FrontEndError::NotTheReply { got: 1, .. })));
    let mut front_end = answering(|_| (5, vec![0; 4]));
    assert!(matches!(front_end.get_features(), Err(FrontEndError::ShortReply { need: 8, have: 4, .. })));
}

#[test]
fn a_refusal_carries_its_code() {
    let mut front_end = answering(|message| {
        assert_eq!(message.flags, 9);
        (5, 3_u64.to_ne_bytes().to_vec())
    });
    front_end.protocol = protocol::REPLY_ACK;
    let refused = front_end.set_vring_num(0, 256);
    assert!(matches!(refused, Err(FrontEndError::Refused { request: 8, code: 3 })));
}

#[test]
fn a_closed_connection_is_noticed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut front_end = FrontEnd::new(ours).unwrap();
    assert!(!front_end.is_closed());
    drop(theirs);
    assert!(front_end.is_closed());
    assert!(front_end.get_features().is_err());
}

#[test]
fn the_memory_table_has_its_files_beside_it() {
    let memory = GuestMemory::with_regions(&[2 << 20, 4 << 20], crate::memory::Backing::Ordinary).unwrap();
    let mut front_end = answering(|message| {
        assert_eq!(message.fds.len(), 2);
        assert_eq!(message.u32(0).unwrap(), 2);
        assert_eq!(message.u64(8 + 32 + 8).unwrap(), 4 << 20);
        for (fd, len) in message.fds.iter().zip([2 << 20, 4 << 20]) {
            assert_eq!(rustix::fs::fstat(fd.as_fd()).unwrap().st_size, len);
        }
        (5, vec![0; 8])
    });
    front_end.protocol = protocol::REPLY_ACK;
    front_end.share(&memory).unwrap();
}
