//! The grammar of the command line, as clap knows it. Words after a port's name are [`crate::words`]'.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use clap_complete::Shell;

const AFTER: &str = "\
Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 3 no daemon.

Examples:
  fabnic port add vm1 nic virtio-net socket /run/fabnic/vm1.sock vlan 10
  fabnic port set vm1 vlan trunk 10,20-29 native 1
  fabnic fdb show vlan 10
  fabnic rule add web port vm1 ingress prio 100 ip_proto tcp dst_port 80 action pass
  fabnic trace vm1 ip_proto tcp dst_ip 10.0.0.2 dst_port 80
  fabnic why vm1
  fabnic capture vm1 -w - | tcpdump -r -
  fabnic apply /etc/fabnic/fabnic.toml --dry-run";

const PORT_WORDS: &str = "\
Words are pairs of a key and a value, as in the configuration file:
  nic virtio-net|avf|e1000 | uplink tap|pcap|loopback
  socket PATH  role server|client       the vhost-user connection
  vfio_user PATH  mmap on|off           the vfio-user connection
  mac MAC  queues N  queue_size N       a card's
  generation N                          an avf port's
  device NAME  offloads on|off          a tap uplink's
  replay FILE  capture FILE  rate N  loop on|off    a pcap uplink's
  vlan N | vlan trunk LIST [native N]
  mtu N  state auto|enable|disable  learning on|off  fdb_limit N
  trust on|off  spoofchk on|off  isolated on|off  sticky on|off
  proto 802.1q|802.1ad  qos N  vlan_map.N M
  max_tx_rate RATE  min_tx_rate RATE  tx_weight N  tx_priority N  fair_share on|off
  police 'RATE burst SIZE'  police_egress 'RATE burst SIZE'  storm.KIND RATE
  flood on|off  mcast_flood on|off  bcast_flood on|off  guest_lists on|off
  guard.KEY VALUE  answer.KEY VALUE  priority.KEY VALUE   keys of these tables; lists with commas
  conntrack.KEY VALUE  nat.inside IP  nat.outside IP
  multicast.router auto|always|never  multicast.fast_leave on|off  multicast.limit N
  tenant NAME  tenant_keys KEY[,KEY]..  whose it is, and what is left to him
The value `default` takes a key back to its default.";

const RULE_WORDS: &str = "\
Words, in the order of `tc filter add .. flower`:
  [tenant NAME] [port NAME[,NAME]..] [ingress|egress] [group N] [prio N]
  what it looks at, each a key and a value:
    src_mac, dst_mac MAC[/MASK]   protocol ipv4|ipv6|arp|N
    vlan_id, cvlan_id N   vlan_prio, cvlan_prio N[-N]
    ip_proto tcp|udp|icmp|icmpv6|sctp|N   src_ip, dst_ip PREFIX|group:NAME
    src_port, dst_port N[-N]   tcp_flags FLAGS[/FLAGS]
    ip_tos N[/MASK]   dscp, ip_ttl N[-N]   ip_flags frag|nofrag|firstfrag|nofirstfrag
    icmp_type, icmp_code N[-N]   nd_target PREFIX
    arp_op request|reply|N   arp_sip, arp_tip PREFIX   arp_sha, arp_tha MAC[/MASK]
    ct_state [+-]trk|new|est|rel|rpl|inv..   ct_mark, mark N[/MASK]
  what it does, each after the word `action`:
    drop | pass | count | redirect PORT | mirror MIRROR | goto GROUP
    set [dst_mac MAC] [src_mac MAC] [vlan N] [vlan_prio N] [dscp N] [ttl dec|N]
        [src_ip IP] [dst_ip IP] [src_port N] [dst_port N]
    meter METER | police RATE [burst SIZE] | sample N mirror MIRROR | mark N
    ct [commit] [zone N] [ct_mark N] [snat RANGE] [dnat RANGE]
A tenant's rule is TENANT/NAME to infrastructure, and NAME to the tenant.";

const MIRROR_WORDS: &str = "\
Words are pairs of a key and a value:
  to PORT  port NAME[,NAME]..  direction ingress|egress|both  vlan LIST  snaplen N  sample N
The value `default` takes a key back to its default.";

/// Talks to fabnicd, the software network card daemon.
#[derive(Debug, Parser)]
#[command(name = "fabnic", version, after_help = AFTER, arg_required_else_help = true)]
pub(crate) struct Args {
    /// Unix socket of the daemon's API
    #[arg(
        long,
        global = true,
        env = "FABNIC_API",
        default_value = "/run/fabnic/api.sock",
        value_name = "SOCK"
    )]
    pub(crate) api: PathBuf,

    /// Print the daemon's answer as JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Token of a tenant: the request is the tenant's. Better in the environment, where others do not see it
    #[arg(long, global = true, env = "FABNIC_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Say whether the daemon works
    Status,
    /// Show and change ports
    #[command(subcommand)]
    Port(Port),
    /// Show and change the forwarding database
    #[command(subcommand)]
    Fdb(Fdb),
    /// Show the VLANs of ports
    #[command(subcommand)]
    Vlan(Vlan),
    /// Show counters and drop reasons
    #[command(subcommand)]
    Stats(Stats),
    /// Show what the workers do
    #[command(subcommand)]
    Worker(Worker),
    /// Show the configuration that runs
    #[command(subcommand)]
    Config(Config),
    /// Show and change rules
    #[command(subcommand)]
    Rule(Rule),
    /// Show and change security groups
    #[command(subcommand)]
    Group(Group),
    /// Show and change mirrors
    #[command(subcommand)]
    Mirror(Mirror),
    /// Show tenants, and make tokens for them
    #[command(subcommand)]
    Tenant(Tenant),
    /// Show and forget addresses that are bound to ports
    #[command(subcommand)]
    Binding(Binding),
    /// Show neighbours that announced themselves by LLDP
    #[command(subcommand)]
    Lldp(Lldp),
    /// Show and flush connections that are tracked
    #[command(subcommand)]
    Conn(Conn),
    /// Show and change meters
    #[command(subcommand)]
    Meter(Meter),
    /// Show who listens to multicast groups, and change static members
    #[command(subcommand)]
    Mdb(Mdb),
    /// Show, save and move what the switch has learned and what runs in it
    #[command(subcommand)]
    State(State),
    /// Show the largest flows
    #[command(subcommand)]
    Flow(Flow),
    /// Say what would become of a frame, stage by stage, without sending it
    #[command(after_help = TRACE_WORDS)]
    Trace(Trace),
    /// Show the frames that were dropped lately at a port, and which stage dropped them
    Why {
        /// Name of the port
        port: String,
    },
    /// Show what happens as it happens, a line of JSON each
    Events,
    /// Show who changed what
    Audit {
        /// Most entries to show
        #[arg(long, short = 'n', default_value_t = 100)]
        limit: usize,
    },
    /// Capture a port's frames as pcapng, with verdict or drop reason as a comment
    Capture(Capture),
    /// Make the running daemon equal to a file: all of it, or nothing
    Apply(Apply),
    /// Watch ports and workers live
    Top {
        /// Seconds between looks
        #[arg(long, short = 'i', default_value = "1", value_parser = interval)]
        interval: f64,
    },
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages
    #[command(hide = true)]
    Man {
        /// Directory to write to
        dir: PathBuf,
    },
    /// Write all generated pages of docs/
    #[command(hide = true)]
    Gen {
        /// Directory to write to
        dir: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum State {
    /// Show what was saved last, and what came back when the daemon started
    Show,
    /// Save it now
    Save,
    /// Write the state of one port, to be taken in by another switch; with --json as text, to be read
    Export {
        /// Name of the port
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        port: String,
        /// File to write to; unless said, standard output
        file: Option<PathBuf>,
    },
    /// Take in the state of a port that another switch gave
    Import {
        /// Name of the port here
        #[arg(long, value_parser = NonEmptyStringValueParser::new())]
        port: String,
        /// File to read; unless said, standard input
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Port {
    /// Show all ports, or one in detail
    #[command(alias = "list")]
    Show {
        /// Name of the port
        name: Option<String>,
    },
    /// Add a port
    #[command(after_help = PORT_WORDS)]
    Add(PortWords),
    /// Change keys of a port
    #[command(after_help = PORT_WORDS)]
    Set(PortWords),
    /// Remove a port, and the static FDB entries that point to it
    #[command(alias = "delete")]
    Del {
        /// Name of the port
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PortWords {
    /// Name of the port
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Keys and values
    #[arg(value_name = "KEY VALUE", required = true)]
    pub(crate) words: Vec<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fdb {
    /// Show entries: `[MAC] [port NAME] [vlan N] [static|learned]`
    #[command(alias = "list")]
    Show {
        /// Which: `[MAC] [port NAME] [vlan N] [static|learned]`
        #[arg(value_name = "WHICH")]
        words: Vec<String>,
        /// Most entries to show
        #[arg(long, default_value_t = fabnic_api::FdbFilter::DEFAULT_LIMIT)]
        limit: usize,
    },
    /// Show what was learned and forgotten, and what was not learned and why
    Stats,
    /// Add a static entry: MAC port NAME vlan N
    Add {
        /// The entry: MAC port NAME vlan N
        #[arg(value_name = "ENTRY", required = true)]
        words: Vec<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove static entries and forget learned ones: `[MAC] [port NAME] [vlan N] [static|learned]`
    #[command(alias = "delete")]
    Del {
        /// Which: `[MAC] [port NAME] [vlan N] [static|learned]`
        #[arg(value_name = "WHICH", required = true)]
        words: Vec<String>,
    },
}

const TRACE_WORDS: &str = "\
The frame is given by the words of a rule's match, each with one value, such as
  ip_proto tcp src_ip 10.0.0.1 dst_ip 10.0.0.2 dst_port 443 vlan_id 10
or by its bytes: --hex DIGITS, or --pcap FILE, of which it is the first frame, or the one that --nth says.";

#[derive(Debug, Subcommand)]
pub(crate) enum Rule {
    /// Show all rules, or one in detail
    #[command(alias = "list")]
    Show {
        /// Name of the rule
        name: Option<String>,
    },
    /// Add a rule
    #[command(after_help = RULE_WORDS)]
    Add(RuleWords),
    /// Put another rule in the place of one; its counters go on
    #[command(after_help = RULE_WORDS, alias = "replace")]
    Set(RuleWords),
    /// Remove rules, all of them or none
    #[command(alias = "delete")]
    Del {
        /// Names of the rules
        #[arg(required = true, value_parser = NonEmptyStringValueParser::new())]
        names: Vec<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct RuleWords {
    /// Name of the rule
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// What it looks at and what it does
    #[arg(value_name = "WORDS", required = true)]
    pub(crate) words: Vec<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Group {
    /// Show all groups, or the addresses of one
    #[command(alias = "list")]
    Show {
        /// Name of the group
        name: Option<String>,
    },
    /// Add a group
    Add {
        /// Name of the group
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Addresses and prefixes
        addresses: Vec<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Add and remove addresses of a group
    Set {
        /// Name of the group
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Addresses and prefixes that come, each after +, and that go, each after -: +10.0.0.1 -10.1.0.0/16
        #[arg(value_name = "CHANGES", required = true, allow_hyphen_values = true)]
        changes: Vec<String>,
    },
    /// Remove a group
    #[command(alias = "delete")]
    Del {
        /// Name of the group
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mirror {
    /// Show all mirrors
    #[command(alias = "list")]
    Show,
    /// Add a mirror
    #[command(after_help = MIRROR_WORDS)]
    Add(MirrorWords),
    /// Change keys of a mirror
    #[command(after_help = MIRROR_WORDS)]
    Set(MirrorWords),
    /// Remove a mirror
    #[command(alias = "delete")]
    Del {
        /// Name of the mirror
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MirrorWords {
    /// Name of the mirror
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Keys and values
    #[arg(value_name = "KEY VALUE", required = true)]
    pub(crate) words: Vec<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Tenant {
    /// Show tenants with what they have of their quotas
    #[command(alias = "list")]
    Show,
    /// Make a token: prints it, and the line of the configuration that makes it a tenant's
    Token,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Binding {
    /// Show bindings: `[ADDRESS] [port NAME] [vlan N]`
    #[command(alias = "list")]
    Show {
        /// Which: `[ADDRESS] [port NAME] [vlan N]`
        #[arg(value_name = "WHICH")]
        words: Vec<String>,
    },
    /// Forget learned bindings: `[ADDRESS] [port NAME] [vlan N]`
    #[command(alias = "delete")]
    Del {
        /// Which: `[ADDRESS] [port NAME] [vlan N]`
        #[arg(value_name = "WHICH", required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lldp {
    /// Show neighbours
    #[command(alias = "list")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Conn {
    /// Show connections: `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`
    #[command(alias = "list")]
    Show {
        /// Which: `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`
        #[arg(value_name = "WHICH")]
        words: Vec<String>,
        /// Most connections to show
        #[arg(long, default_value_t = fabnic_api::ConnectionFilter::DEFAULT_LIMIT)]
        limit: usize,
        /// Go on where the page before ended
        #[arg(long)]
        from: Option<u32>,
    },
    /// Forget connections: `all`, or `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`
    Flush {
        /// Which: `all`, or `[ADDRESS] [port NAME] [zone N] [ip_proto tcp|udp|..]`
        #[arg(value_name = "WHICH", required = true)]
        words: Vec<String>,
    },
    /// Show the table's and its zones' numbers
    Stats,
}

const METER_WORDS: &str = "\
Words are pairs of a key and a value, as in the configuration file:
  rate RATE  burst SIZE                 the committed rate (10mbit, 5kpps) and what may come at once
  peak_rate RATE | excess_rate RATE     a second rate (RFC 2698, RFC 4115)
  excess_burst SIZE                     what may come at once of it
  yellow, red pass|drop|DSCP            what is done with frames of these colors
  color_aware on|off  color_from meters|dscp   whether, and where from, the color counts that frames come with
  overhead BYTES  parent METER
The value `default` takes a key back to its default.";

#[derive(Debug, Subcommand)]
pub(crate) enum Meter {
    /// Show all meters with their tokens, or those of a port
    #[command(alias = "list")]
    Show {
        /// Only those of this port
        port: Option<String>,
    },
    /// Add a meter that rules can name
    #[command(after_help = METER_WORDS)]
    Add(MeterWords),
    /// Change keys of a meter
    #[command(after_help = METER_WORDS)]
    Set(MeterWords),
    /// Remove a meter
    #[command(alias = "delete")]
    Del {
        /// Name of the meter
        #[arg(value_parser = NonEmptyStringValueParser::new())]
        name: String,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct MeterWords {
    /// Name of the meter
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// Keys and values
    #[arg(value_name = "KEY VALUE", required = true)]
    pub(crate) words: Vec<String>,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mdb {
    /// Show members of groups: `[GROUP] [port NAME] [vlan N]`
    #[command(alias = "list")]
    Show {
        /// Which: `[GROUP] [port NAME] [vlan N]`
        #[arg(value_name = "WHICH")]
        words: Vec<String>,
        /// Most members to show
        #[arg(long, default_value_t = fabnic_api::MdbFilter::DEFAULT_LIMIT)]
        limit: usize,
    },
    /// Show how many listen, and what was heard and sent, by VLAN
    Stats,
    /// Add a static member: GROUP port NAME vlan N
    Add {
        /// The member: GROUP port NAME vlan N
        #[arg(value_name = "MEMBER", required = true)]
        words: Vec<String>,
        /// Only say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Remove static members: `[GROUP] [port NAME] [vlan N]`
    #[command(alias = "delete")]
    Del {
        /// Which: `[GROUP] [port NAME] [vlan N]`
        #[arg(value_name = "WHICH", required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Flow {
    /// Show the largest flows
    #[command(alias = "list")]
    Show {
        /// Only from this port
        port: Option<String>,
        /// Most flows to show
        #[arg(long, short = 'n', default_value_t = 20)]
        limit: usize,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Trace {
    /// Port from which the frame would come
    pub(crate) port: String,
    /// The frame, by its fields
    #[arg(value_name = "KEY VALUE", conflicts_with_all = ["hex", "pcap"])]
    pub(crate) words: Vec<String>,
    /// The frame as hexadecimal digits, from its destination address on
    #[arg(long, conflicts_with = "pcap")]
    pub(crate) hex: Option<String>,
    /// The frame from a capture file (pcap or pcapng), or - for standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) pcap: Option<PathBuf>,
    /// Which frame of the file, counted from 1
    #[arg(long, value_name = "N", default_value_t = 1, requires = "pcap",
          value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) nth: u64,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Vlan {
    /// Show the VLANs of ports: `[port NAME] [vlan N]`
    #[command(alias = "list")]
    Show {
        /// Which: `[port NAME] [vlan N]`
        #[arg(value_name = "WHICH")]
        words: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Stats {
    /// Show counters of the switch and its ports
    #[command(alias = "list")]
    Show {
        /// Only this port
        port: Option<String>,
        /// With each queue
        #[arg(long, short)]
        queues: bool,
        /// Show again and again, as rates; every second unless said
        #[arg(long, short, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
        watch: Option<f64>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Worker {
    /// Show cycles, bursts and sleep of each worker
    #[command(alias = "list")]
    Show,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Show it as TOML
    Show,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Direction {
    /// From the port's peer
    Rx,
    /// To the port's peer
    Tx,
    /// Both
    Both,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Capture {
    /// Name of the port
    pub(crate) port: String,
    /// File to write, or - for standard output
    #[arg(long, short)]
    pub(crate) write: PathBuf,
    /// Most bytes to keep of a frame
    #[arg(long, short, default_value_t = fabnic_api::CaptureRequest::MAX_SNAPLEN,
          value_parser = clap::value_parser!(u32).range(1..=262_144))]
    pub(crate) snaplen: u32,
    /// Which way, seen from the switch
    #[arg(long, short = 'Q', value_enum, default_value = "both")]
    pub(crate) direction: Direction,
    /// End after so many frames
    #[arg(long, short)]
    pub(crate) count: Option<u64>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Apply {
    /// Configuration, or - for standard input
    pub(crate) file: PathBuf,
    /// Only say what would change
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// Seconds that a person would wait.
fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("expected 0.1 to 3600 seconds".into()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn grammar_holds_together() {
        use clap::CommandFactory as _;
        super::Args::command().debug_assert();
    }
}
