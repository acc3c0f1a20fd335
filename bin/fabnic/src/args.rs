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
  fabnic capture vm1 -w - | tcpdump -r -
  fabnic apply /etc/fabnic/fabnic.toml --dry-run";

const PORT_WORDS: &str = "\
Words are pairs of a key and a value, as in the configuration file:
  nic virtio-net|avf|e1000 | uplink tap|pcap|loopback
  socket PATH  role server|client       the vhost-user connection
  vfio_user PATH  mmap on|off           the vfio-user connection
  mac MAC  queues N  queue_size N       a card's
  generation N  trust on|off  spoofchk on|off    an avf port's
  device NAME  offloads on|off          a tap uplink's
  replay FILE  capture FILE  rate N  loop on|off    a pcap uplink's
  vlan N | vlan trunk LIST [native N]
  mtu N  state auto|enable|disable  learning on|off  fdb_limit N
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
