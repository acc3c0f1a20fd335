//! A rule as words, in the order of `tc filter add .. flower`: where it stands, what it looks at, what it does.
//!
//! ```text
//!   RULE   = [tenant NAME] [port NAME[,NAME]..] [ingress|egress] [group N] [prio N] { KEY VALUE } { [action] ACTION }
//!   ACTION = drop | pass | count | redirect PORT | mirror MIRROR | goto GROUP | set { FIELD VALUE } | meter METER
//!          | police RATE [burst SIZE] | sample N mirror MIRROR | mark N
//!          | ct [commit] [zone N] [ct_mark N] [snat RANGE] [dnat RANGE]
//! ```
//!
//! No word of an action is a field of `set` or of `ct`, so that `action` may be left out between them.

use std::{fmt, str::FromStr};

use super::{Action, Ct, Direction, Match, PortNames, Rule, Sample, Set};
use crate::{parse::shortened, refusal::nearest, word::WordError};

/// Words that say where a rule stands.
const PLACE: [&str; 8] = ["tenant", "port", "ports", "ingress", "egress", "group", "prio", "action"];
/// Fields of `set`.
const FIELDS: [&str; 10] =
    ["dst_mac", "src_mac", "vlan", "vlan_prio", "dscp", "ttl", "src_ip", "dst_ip", "src_port", "dst_port"];
/// Most words of a rule: more than all keys and 64 actions have.
const MOST: usize = 512;
/// Most actions of a rule.
pub(crate) const MOST_ACTIONS: usize = 64;

/// The words that are left.
struct Words<'a> {
    rest: &'a [&'a str],
}

impl<'a> Words<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn peek(&self) -> Option<&'a str> {
        self.rest.first().copied()
    }

    fn value(&mut self, key: &str) -> Result<&'a str, WordError> {
        self.next().ok_or_else(|| {
            WordError::because(format!("`{}` needs a value", shortened(key)), "a word after it")
        })
    }

    fn read<T: FromStr>(&mut self, key: &str, expected: &'static str) -> Result<T, WordError> {
        let text = self.value(key)?;
        text.parse().map_err(|_| WordError::because(format!("{key}: `{}`", shortened(text)), expected))
    }
}

const NUMBER: &str = "a number from 0 to 4294967295";

fn twice(word: &str) -> WordError {
    WordError::because(format!("`{}` is given twice", shortened(word)), "each once")
}

fn unknown(word: &str, known: impl Iterator<Item = &'static str>) -> WordError {
    let problem = match nearest(word, known) {
        Some(hint) => format!("`{}` says nothing here (did you mean `{hint}`?)", shortened(word)),
        None => format!("`{}` says nothing here", shortened(word)),
    };
    WordError::because(problem, "a key of `match` with its value, or `action` with what is to be done")
}

impl Rule {
    /// Reads a rule from words, its name apart.
    ///
    /// # Errors
    /// Says which word is wrong, and what was expected.
    pub fn of_words(name: &str, words: &[&str]) -> Result<Self, WordError> {
        if words.len() > MOST {
            return Err(WordError::because(format!("{} words are given", words.len()), "at most 512"));
        }
        let mut rule = Self { action: Vec::new(), ..Self::named(name) };
        let mut words = Words { rest: words };
        let mut given: Vec<&str> = Vec::new();
        while let Some(word) = words.next() {
            let is_action = word == "action" || Action::WORDS.contains(&word);
            // `mark` asks for a mark until it is clear that the rest are actions.
            if is_action && (word != "mark" || !rule.action.is_empty()) {
                let first = if word == "action" { words.value(word)? } else { word };
                rule.action.push(action(first, &mut words)?);
                if rule.action.len() > MOST_ACTIONS {
                    return Err(WordError::because("there are too many actions", "at most 64"));
                }
                continue;
            }
            if !rule.action.is_empty() {
                return Err(unknown(word, Action::WORDS.iter().copied()));
            }
            let place = match word {
                "ingress" | "egress" => "direction",
                "ports" => "port",
                other => other,
            };
            if PLACE.contains(&word) {
                if given.contains(&place) {
                    return Err(twice(word));
                }
                given.push(place);
            }
            match word {
                "tenant" => rule.tenant = Some(words.value(word)?.to_owned()),
                "port" | "ports" => {
                    rule.port = PortNames(words.value(word)?.split(',').map(str::to_owned).collect());
                }
                "ingress" => rule.direction = Direction::Ingress,
                "egress" => rule.direction = Direction::Egress,
                "group" => rule.group = words.read(word, NUMBER)?,
                "prio" => rule.priority = words.read(word, NUMBER)?,
                key if Match::KEYS.contains(&key) => rule.matching.read_key(key, &mut words)?,
                other => {
                    let known = Match::KEYS.iter().chain(&PLACE).chain(Action::WORDS).copied();
                    return Err(unknown(other, known));
                }
            }
        }
        if rule.action.is_empty() {
            let expected =
                "action drop, pass, count, redirect, mirror, goto, set, meter, police, sample, mark or ct";
            return Err(WordError::because("the rule does nothing", expected));
        }
        Ok(rule)
    }
}

impl Match {
    /// Reads keys and values.
    ///
    /// # Errors
    /// Says which word is wrong, and what was expected.
    pub fn of_words(words: &[&str]) -> Result<Self, WordError> {
        let mut matching = Self::default();
        let mut words = Words { rest: words.get(..MOST).unwrap_or(words) };
        while let Some(key) = words.next() {
            if !Self::KEYS.contains(&key) {
                return Err(unknown(key, Self::KEYS.iter().copied()));
            }
            matching.read_key(key, &mut words)?;
        }
        Ok(matching)
    }

    fn read_key(&mut self, key: &str, words: &mut Words<'_>) -> Result<(), WordError> {
        let text = words.value(key)?;
        match self.read(key, text) {
            Some(Ok(true)) => Ok(()),
            Some(Ok(false)) => Err(twice(key)),
            Some(Err(error)) => Err(WordError { problem: format!("{key}: {}", error.problem), ..error }),
            None => Err(unknown(key, Self::KEYS.iter().copied())),
        }
    }
}

fn action(word: &str, words: &mut Words<'_>) -> Result<Action, WordError> {
    let name = |words: &mut Words<'_>| words.value(word).map(str::to_owned);
    Ok(match word {
        "drop" => Action::Drop,
        "pass" => Action::Pass,
        "count" => Action::Count,
        "redirect" => Action::Redirect(name(words)?),
        "mirror" => Action::Mirror(name(words)?),
        "goto" => Action::Goto(words.read(word, NUMBER)?),
        "meter" => Action::Meter(name(words)?),
        "mark" => Action::Mark(words.read(word, NUMBER)?),
        "police" => {
            let mut text = name(words)?;
            if words.peek() == Some("burst") {
                words.next();
                text = format!("{text} burst {}", words.value("burst")?);
            }
            Action::Police(text.parse()?)
        }
        "sample" => {
            let one_in = words.read(word, NUMBER)?;
            if words.next() != Some("mirror") {
                return Err(WordError::because("a sample goes nowhere", "sample N mirror MIRROR"));
            }
            Action::Sample(Sample { one_in, mirror: words.value("mirror")?.to_owned() })
        }
        "set" => Action::Set(Box::new(set(words)?)),
        "ct" => Action::Ct(Box::new(ct(words)?)),
        other => return Err(unknown(other, Action::WORDS.iter().copied())),
    })
}

fn put<T>(place: &mut Option<T>, word: &str, value: T) -> Result<(), WordError> {
    if place.replace(value).is_some() { Err(twice(word)) } else { Ok(()) }
}

fn set(words: &mut Words<'_>) -> Result<Set, WordError> {
    let mut set = Set::default();
    while let Some(field) = words.peek().filter(|word| FIELDS.contains(word)) {
        words.next();
        match field {
            "dst_mac" => put(&mut set.dst_mac, field, words.read(field, "a MAC address")?)?,
            "src_mac" => put(&mut set.src_mac, field, words.read(field, "a MAC address")?)?,
            "vlan" => put(&mut set.vlan, field, words.read(field, "a VLAN from 1 to 4094")?)?,
            "vlan_prio" => put(&mut set.vlan_prio, field, words.read(field, "a number from 0 to 7")?)?,
            "dscp" => put(&mut set.dscp, field, words.read(field, "a number from 0 to 63")?)?,
            "ttl" => put(&mut set.ttl, field, words.read(field, "dec, or a number from 0 to 255")?)?,
            "src_ip" => put(&mut set.src_ip, field, words.read(field, "an address")?)?,
            "dst_ip" => put(&mut set.dst_ip, field, words.read(field, "an address")?)?,
            "src_port" => put(&mut set.src_port, field, words.read(field, "a port from 0 to 65535")?)?,
            _ => put(&mut set.dst_port, field, words.read(field, "a port from 0 to 65535")?)?,
        }
    }
    if set == Set::default() {
        let expected = "dst_mac, src_mac, vlan, vlan_prio, dscp, ttl, src_ip, dst_ip, src_port or dst_port with its value";
        return Err(WordError::because("`set` sets nothing", expected));
    }
    Ok(set)
}

fn ct(words: &mut Words<'_>) -> Result<Ct, WordError> {
    let mut ct = Ct::default();
    while let Some(word) = words.peek() {
        match word {
            "commit" => {
                words.next();
                if std::mem::replace(&mut ct.commit, true) {
                    return Err(twice(word));
                }
                continue;
            }
            "zone" | "ct_mark" | "snat" | "dnat" => words.next(),
            _ => break,
        };
        let range = |words: &mut Words<'_>| -> Result<_, WordError> { words.value(word)?.parse() };
        match word {
            "zone" => put(&mut ct.zone, word, words.read(word, "a number from 0 to 65535")?)?,
            "ct_mark" => put(&mut ct.ct_mark, word, words.read(word, NUMBER)?)?,
            "snat" => put(&mut ct.snat, word, range(words)?)?,
            _ => put(&mut ct.dnat, word, range(words)?)?,
        }
    }
    Ok(ct)
}

/// Writes words with a space between them.
struct Sentence<'a, 'b> {
    to: &'a mut fmt::Formatter<'b>,
    is_begun: bool,
    result: fmt::Result,
}

impl Sentence<'_, '_> {
    fn word(&mut self, word: &dyn fmt::Display) {
        let space = if std::mem::replace(&mut self.is_begun, true) { " " } else { "" };
        self.result = self.result.and_then(|()| write!(self.to, "{space}{word}"));
    }

    fn pair(&mut self, key: &str, value: &dyn fmt::Display) {
        self.word(&key);
        self.word(value);
    }

    fn maybe<T: fmt::Display>(&mut self, key: &str, value: &Option<T>) {
        if let Some(value) = value {
            self.pair(key, value);
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Drop => f.write_str("drop"),
            Self::Pass => f.write_str("pass"),
            Self::Count => f.write_str("count"),
            Self::Redirect(port) => write!(f, "redirect {port}"),
            Self::Mirror(mirror) => write!(f, "mirror {mirror}"),
            Self::Goto(group) => write!(f, "goto {group}"),
            Self::Meter(meter) => write!(f, "meter {meter}"),
            Self::Police(police) => write!(f, "police {police}"),
            Self::Sample(sample) => write!(f, "sample {} mirror {}", sample.one_in, sample.mirror),
            Self::Mark(mark) => write!(f, "mark {mark}"),
            Self::Set(set) => {
                let mut to = Sentence { to: f, is_begun: false, result: Ok(()) };
                to.word(&"set");
                to.maybe("dst_mac", &set.dst_mac);
                to.maybe("src_mac", &set.src_mac);
                to.maybe("vlan", &set.vlan);
                to.maybe("vlan_prio", &set.vlan_prio);
                to.maybe("dscp", &set.dscp);
                to.maybe("ttl", &set.ttl);
                to.maybe("src_ip", &set.src_ip);
                to.maybe("dst_ip", &set.dst_ip);
                to.maybe("src_port", &set.src_port);
                to.maybe("dst_port", &set.dst_port);
                to.result
            }
            Self::Ct(ct) => {
                let mut to = Sentence { to: f, is_begun: false, result: Ok(()) };
                to.word(&"ct");
                if ct.commit {
                    to.word(&"commit");
                }
                to.maybe("zone", &ct.zone);
                to.maybe("ct_mark", &ct.ct_mark);
                to.maybe("snat", &ct.snat);
                to.maybe("dnat", &ct.dnat);
                to.result
            }
        }
    }
}

impl fmt::Display for Rule {
    /// The words that [`Rule::of_words`] reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut to = Sentence { to: f, is_begun: false, result: Ok(()) };
        to.maybe("tenant", &self.tenant);
        if !self.port.is_empty() {
            to.pair("port", &self.port);
        }
        to.word(&self.direction.as_str());
        if self.group != 0 {
            to.pair("group", &self.group);
        }
        to.pair("prio", &self.priority);
        self.matching.words(|key, value| to.pair(key, value));
        for action in &self.action {
            to.pair("action", action);
        }
        to.result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Rule, WordError> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Rule::of_words("r", &words)
    }

    #[test]
    fn a_rule_in_the_order_of_tc() {
        let text = "port vm1 ingress prio 100 ip_proto tcp dst_port 80 action pass";
        let rule = read(text).unwrap();
        assert_eq!(rule.port.0, ["vm1"]);
        assert_eq!((rule.priority, rule.action.as_slice()), (100, &[Action::Pass][..]));
        assert_eq!(rule.to_string(), text);
        let toml = "name = \"r\"\nport = \"vm1\"\npriority = 100\nmatch = { ip_proto = \"tcp\", dst_port = 80 }\n\
                    action = [\"pass\"]\n";
        assert_eq!(toml::from_str::<Rule>(toml).unwrap(), rule);
    }

    #[test]
    fn every_action_is_read_as_written() {
        let text = "tenant blue port a,b egress group 3 prio 7 src_mac 52:54:00:00:00:00/ff:ff:ff:00:00:00 \
                    protocol ipv4 vlan_id 10 src_ip 10.0.0.0/8 dst_ip group:web mark 5 action count \
                    action mirror tap action set dst_mac 52:54:00:00:00:02 dscp 46 ttl dec dst_ip 10.0.0.9 \
                    action meter gold action police 10mbit burst 64k action sample 1000 mirror tap action mark 9 \
                    action ct commit zone 4 ct_mark 2 snat 203.0.113.1:1024-65535 action goto 5";
        let rule = read(text).unwrap();
        assert_eq!(rule.to_string(), text.split_whitespace().collect::<Vec<_>>().join(" "));
        assert_eq!(rule.action.len(), 9);
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule, "{json}");
        let toml = toml::to_string(&rule).unwrap();
        assert_eq!(toml::from_str::<Rule>(&toml).unwrap(), rule, "{toml}");
    }

    #[test]
    fn action_may_be_left_out() {
        assert_eq!(
            read("set dscp 3 meter m pass").unwrap(),
            read("action set dscp 3 action meter m action pass").unwrap()
        );
        assert_eq!(read("ct commit drop").unwrap().action.len(), 2);
        assert_eq!(read("mark 3 drop").unwrap().matching.mark.unwrap().value, 3);
        assert_eq!(read("action mark 3 pass").unwrap().action[0], Action::Mark(3));
    }

    #[test]
    fn slips_are_named() {
        for (text, problem) in [
            ("", "the rule does nothing"),
            ("prio 5", "the rule does nothing"),
            ("dst_prot 80 drop", "`dst_prot` says nothing here (did you mean `dst_port`?)"),
            ("dst_port 80 dst_port 81 drop", "`dst_port` is given twice"),
            ("ingress egress drop", "`egress` is given twice"),
            ("prio high drop", "prio: `high`"),
            ("dst_port", "`dst_port` needs a value"),
            ("dst_port 99999 drop", "dst_port: `99999` is no port or range of ports"),
            ("action", "`action` needs a value"),
            ("drop dst_port 80", "`dst_port` says nothing here"),
            ("set drop", "`set` sets nothing"),
            ("set dscp 1 dscp 2", "`dscp` is given twice"),
            ("sample 10 drop", "a sample goes nowhere"),
            ("police 10 drop", "`10` is no rate"),
            ("redirect", "`redirect` needs a value"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.problem, problem, "{text}");
            assert!(!error.expected.is_empty());
        }
    }
}
