//! Any words as a rule, and as a match: read or refused with a reason, and what was read is written as words, JSON and
//! TOML that are read again as the same rule.

use fabnic_model::{Config, Desired, Domain, Edit, Kind, Rule, rule::Match};

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let words: Vec<&str> = text.split_whitespace().collect();
    match Match::of_words(&words) {
        Ok(matching) => {
            let json = serde_json::to_string(&matching).expect("our own types");
            assert_eq!(serde_json::from_str::<Match>(&json).expect("what we write we read"), matching);
        }
        Err(error) => assert!(!error.problem.is_empty() && !error.expected.is_empty()),
    }
    let rule = match Rule::of_words("fuzzed", &words) {
        Ok(rule) => rule,
        Err(error) => {
            assert!(!error.problem.is_empty() && !error.expected.is_empty());
            assert!(!error.problem.chars().any(char::is_control), "{error:?}");
            return;
        }
    };
    let written = rule.to_string();
    let again: Vec<&str> = written.split(' ').collect();
    assert_eq!(Rule::of_words("fuzzed", &again).as_ref(), Ok(&rule), "{written}");
    let json = serde_json::to_value(&rule).expect("our own types");
    assert_eq!(serde_json::from_value::<Rule>(json.clone()).expect("what we write we read"), rule, "{json}");

    // As an edit it is taken or refused, and what is taken leaves a correct configuration.
    let mut desired = Desired::new(fabnic_model::parse(CONFIG).expect("a correct configuration"));
    let edit = Edit::Add { kind: Kind::Rule, value: json };
    for domain in [Domain::Infrastructure, Domain::Tenant("blue".into())] {
        let Ok(Some(change)) = desired.plan(&domain, &edit) else { continue };
        let before = desired.config().clone();
        let undo = desired.reverse(&change).expect("a local change can be undone");
        desired.carry_out(&change);
        usable(desired.config());
        let toml = desired.config().to_toml().expect("what was checked can be written");
        assert_eq!(&fabnic_model::parse(&toml).expect("what we write we read"), desired.config(), "{toml}");
        desired.undo(undo);
        assert_eq!(desired.config(), &before);
    }
}

fn usable(config: &Config) {
    if let Err(refused) = config.check() {
        panic!("what was planned is refused: {refused}");
    }
}

const CONFIG: &str = r#"
[[port]]
name = "a"
uplink = "loopback"
[[port]]
name = "b"
uplink = "loopback"
tenant = "blue"
[[tenant]]
name = "blue"
[[group]]
name = "g"
[[meter]]
name = "m"
rate = "1mbit"
[[mirror]]
name = "t"
to = "a"
"#;
