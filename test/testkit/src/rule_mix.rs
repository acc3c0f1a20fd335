//! Rule sets as access lists, firewalls and IP chains have them.
//!
//! After the published statistics of ClassBench (Taylor and Turner, IEEE/ACM ToN 2007): pairs of prefix lengths, classes of
//! ports (any, high, low, range, exact) and protocols differ by family; prefixes nest and repeat. Seeded, so that two runs
//! measure the same.

/// A small generator of numbers (xorshift*).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.roll() >> 32) % n.max(1)
    }

    /// One of these, by weight.
    fn pick<T: Copy>(&mut self, of: &[(u64, T)]) -> T {
        let mut left = self.below(of.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in of {
            if left < *weight {
                return *value;
            }
            left -= weight;
        }
        of.first().expect("something to pick from").1
    }
}

/// Kinds of rule set.
#[derive(Clone, Copy, Debug)]
pub enum Family {
    /// Access lists: destinations are precise, sources less so, ports mostly exact.
    Acl,
    /// Firewalls: many wildcards, on either side.
    Fw,
    /// IP chains: a mixture.
    Ipc,
}

#[derive(Clone, Copy)]
enum Ports {
    Any,
    High,
    Low,
    Range,
    Exact,
}

/// What one rule matches.
#[derive(Clone, Copy, Debug)]
pub struct FiveFields {
    /// Source prefix and its length.
    pub src: (u32, u8),
    /// Destination prefix and its length.
    pub dst: (u32, u8),
    /// First and last source port.
    pub src_port: (u16, u16),
    /// First and last destination port.
    pub dst_port: (u16, u16),
    /// The protocol; any, with any port, if `None`.
    pub protocol: Option<u8>,
}

impl FiveFields {
    /// A packet that it matches; another rule of the set may match it as well.
    pub fn packet(&self, dice: &mut Dice) -> Tuple {
        let within =
            |(value, len): (u32, u8), dice: &mut Dice| value | dice.roll() as u32 & !prefix_mask(len);
        let port =
            |(min, max): (u16, u16), dice: &mut Dice| min + dice.below(u64::from(max - min) + 1) as u16;
        Tuple {
            src: within(self.src, dice),
            dst: within(self.dst, dice),
            src_port: port(self.src_port, dice),
            dst_port: port(self.dst_port, dice),
            protocol: self.protocol.unwrap_or(6),
        }
    }
}

/// Addresses, ports and protocol of one packet.
#[derive(Clone, Copy, Debug)]
pub struct Tuple {
    /// Source address.
    pub src: u32,
    /// Destination address.
    pub dst: u32,
    /// Source port.
    pub src_port: u16,
    /// Destination port.
    pub dst_port: u16,
    /// TCP or UDP.
    pub protocol: u8,
}

fn prefix_mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// Prefix lengths with their weights.
type Weighted = &'static [(u64, u8)];

/// This many rules, none of them twice.
pub fn generate(family: Family, count: usize, dice: &mut Dice) -> Vec<FiveFields> {
    let lengths: (Weighted, Weighted) = match family {
        Family::Acl => (
            &[
                (10, 0),
                (4, 8),
                (8, 16),
                (6, 20),
                (5, 22),
                (8, 23),
                (20, 24),
                (6, 26),
                (6, 27),
                (8, 28),
                (5, 30),
                (30, 32),
            ],
            &[
                (2, 0),
                (4, 16),
                (4, 20),
                (5, 22),
                (8, 23),
                (25, 24),
                (6, 26),
                (6, 27),
                (8, 28),
                (4, 29),
                (5, 30),
                (40, 32),
            ],
        ),
        Family::Fw => (
            &[(45, 0), (3, 8), (5, 14), (6, 16), (4, 18), (4, 21), (10, 24), (4, 27), (4, 28), (25, 32)],
            &[(30, 0), (3, 8), (5, 15), (8, 16), (4, 19), (4, 22), (14, 24), (4, 26), (4, 28), (30, 32)],
        ),
        Family::Ipc => (
            &[
                (15, 0),
                (4, 8),
                (5, 13),
                (8, 16),
                (5, 19),
                (5, 21),
                (6, 22),
                (15, 24),
                (6, 26),
                (6, 28),
                (5, 30),
                (30, 32),
            ],
            &[
                (15, 0),
                (4, 8),
                (5, 12),
                (8, 16),
                (5, 18),
                (5, 20),
                (6, 23),
                (15, 24),
                (6, 25),
                (6, 27),
                (5, 29),
                (30, 32),
            ],
        ),
    };
    let (src_ports, dst_ports): (&[_], &[_]) = match family {
        Family::Acl => (
            &[(95, Ports::Any), (3, Ports::High), (1, Ports::Low), (1, Ports::Exact)],
            &[(30, Ports::Any), (5, Ports::High), (2, Ports::Low), (13, Ports::Range), (50, Ports::Exact)],
        ),
        Family::Fw => (
            &[(70, Ports::Any), (15, Ports::High), (2, Ports::Range), (13, Ports::Exact)],
            &[(35, Ports::Any), (10, Ports::High), (5, Ports::Low), (10, Ports::Range), (40, Ports::Exact)],
        ),
        Family::Ipc => (
            &[(70, Ports::Any), (8, Ports::High), (4, Ports::Low), (6, Ports::Range), (12, Ports::Exact)],
            &[(45, Ports::Any), (8, Ports::High), (4, Ports::Low), (10, Ports::Range), (33, Ports::Exact)],
        ),
    };
    let well_known = [
        20_u16, 21, 22, 23, 25, 53, 80, 110, 123, 143, 161, 389, 443, 445, 514, 993, 1433, 1521, 3306, 3389,
        5060, 8080,
    ];
    let ports = |class: Ports, dice: &mut Dice| match class {
        Ports::Any => (0, 65535),
        Ports::High => (1024, 65535),
        Ports::Low => (0, 1023),
        Ports::Range => {
            let first = dice.below(60_000) as u16;
            (first, first + 1 + dice.below(2000) as u16)
        }
        Ports::Exact => {
            let port = well_known[dice.below(well_known.len() as u64) as usize];
            let port = if dice.below(3) == 0 { dice.below(65536) as u16 } else { port };
            (port, port)
        }
    };
    // Networks that prefixes nest in, as sites have them.
    let sites: Vec<u32> = (0..count / 40 + 8).map(|_| dice.roll() as u32).collect();
    let prefix = |len: u8, dice: &mut Dice| {
        let site = sites[dice.below(sites.len() as u64) as usize];
        let address = site & 0xffff_c000 | dice.roll() as u32 & 0x3fff;
        (address & prefix_mask(len), len)
    };
    // No rule twice, and few that match whatever address: those are told apart by ports, of which there are not many.
    let mut known = std::collections::HashSet::new();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let (src, dst) = (dice.pick(lengths.0), dice.pick(lengths.1));
        if src == 0 && dst == 0 && dice.below(50) != 0 {
            continue;
        }
        let made = FiveFields {
            src: prefix(src, dice),
            dst: prefix(dst, dice),
            src_port: ports(dice.pick(src_ports), dice),
            dst_port: ports(dice.pick(dst_ports), dice),
            protocol: dice.pick(&[(70, Some(6)), (20, Some(17)), (10, None)]),
        };
        if known.insert((made.src, made.dst, made.src_port, made.dst_port, made.protocol)) {
            all.push(made);
        }
    }
    all
}
