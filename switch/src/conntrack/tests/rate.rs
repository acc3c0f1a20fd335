//! What it costs. Not a test: `cargo test --profile quick -p fabnic-switch --lib -- --ignored --nocapture conntrack_rate`.

use std::time::Instant;

use super::*;

fn set_ports(frame: &mut [u8], n: u32) {
    frame[26..30].copy_from_slice(&(0x0a00_0000 | n >> 12).to_be_bytes());
    frame[34..36].copy_from_slice(&(((n & 0xfff) as u16) + 1024).to_be_bytes());
}

#[test]
#[ignore = "measures; see the page"]
fn conntrack_rate() {
    const CONNECTIONS: u32 = 1 << 19;
    let ct = Conntrack::new(CONNECTIONS, Arc::new(Versions::new()));
    let (zone, owner) = (ct.zone(1), ct.port(PortId(1)));
    let mut now = 1;
    for (name, mut frame) in [("TCP", seg("S", 100, 0, 0).frame(false)), ("UDP", udp(A, B, (1, 53)))] {
        for round in 0..2 {
            let start = Instant::now();
            for n in 0..CONNECTIONS {
                set_ports(&mut frame, n);
                let fields = Fields::of(&frame).unwrap();
                let packet = Packet::new(&fields, &frame, 60);
                let seen = ct.lookup(&zone, &fields, &packet, now);
                assert!(seen.handle.is_none());
                let made = ct.commit(&zone, &owner, &fields, &packet, None, None, now).unwrap();
                ct.track(made.handle, &packet, now);
            }
            let each = start.elapsed().as_nanos() as f64 / f64::from(CONNECTIONS);
            println!("{name}, round {round}: new connection {each:.0} ns, {:.2} M/s", 1e3 / each);
            let start = Instant::now();
            now += 1000;
            let mut forgotten = 0;
            for _ in 0..1000 {
                forgotten += ct.expire(now, 100_000);
            }
            assert_eq!(forgotten, CONNECTIONS as usize);
            println!(
                "  forgotten in {:.0} ns each",
                start.elapsed().as_nanos() as f64 / f64::from(CONNECTIONS)
            );
        }
    }
    // Packets of open connections: one that stays in the CPU's caches, and very many.
    for connections in [1, 1000, CONNECTIONS] {
        let mut handles = Vec::new();
        for n in 0..connections {
            let mut made = None;
            for (reply, segment) in
                [(false, seg("S", 100, 0, 0)), (true, seg("SA", 500, 101, 0)), (false, seg("A", 101, 501, 0))]
            {
                let ports = (((n & 0xfff) as u16) + 1024, 80);
                let host = (0x0a00_0000 | n >> 12).to_be_bytes();
                let frame = if reply {
                    segment.between(B, host, (ports.1, ports.0))
                } else {
                    segment.between(host, B, ports)
                };
                let fields = Fields::of(&frame).unwrap();
                let packet = Packet::new(&fields, &frame, 60);
                let handle = match ct.lookup(&zone, &fields, &packet, now).handle {
                    Some(handle) => handle,
                    None => ct.commit(&zone, &owner, &fields, &packet, None, None, now).unwrap().handle,
                };
                ct.track(handle, &packet, now);
                made = Some(handle);
            }
            handles.extend(made);
        }
        const PACKETS: usize = 1 << 22;
        let mut frame = seg("A", 101, 501, 0).frame(false);
        frame.resize(64, 0);
        let start = Instant::now();
        let mut valid = 0;
        for n in 0..PACKETS {
            let packet = Packet::of_frame(&frame, 64).unwrap();
            let handle = handles[n % handles.len()];
            valid += usize::from(ct.track(handle, &packet, now) == Tracked::Valid { changed: false });
        }
        let each = start.elapsed().as_nanos() as f64 / PACKETS as f64;
        println!("track, {connections} connections: {each:.1} ns a packet ({valid} valid)");
        ct.flush(|_| true);
    }
    println!("slot: {} bytes", size_of::<super::super::connection::Slot>());
}
